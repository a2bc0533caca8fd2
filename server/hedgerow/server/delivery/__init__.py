"""Delivery: signed bundles in a TUF repository, rollouts to devices, and what they fetch."""
