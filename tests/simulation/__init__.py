"""The operator's own code against a model of a cluster, under a virtual clock; every run is a seed."""
