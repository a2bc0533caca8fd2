"""Scenarios: what an engineer writes in TOML to simulate a federated training, as values, checked."""
