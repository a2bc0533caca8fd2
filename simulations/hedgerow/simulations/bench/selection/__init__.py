"""Choosing the options of anomaly detection from normal rows and planted faults, without labels."""
