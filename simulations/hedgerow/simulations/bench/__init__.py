"""Benchmarks: each measures against a named peer in the same run and prints ratios."""
