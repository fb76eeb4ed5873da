"""What a real control plane shows while something happens to a pod, written down to compare a model with."""
