"""`make bench-checkpoint`: the checkpoint engine beside its peers, measured in one run."""
