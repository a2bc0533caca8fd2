"""Populations, the demo and the benchmarks: what runs a fleet on one machine."""
