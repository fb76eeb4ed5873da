"""`make bench-operator`: the operator beside the built-in Job controller, in one cluster in one run."""
