"""Data sets that are made, not measured: any size, the same for the same seed, learnable but not trivial."""
