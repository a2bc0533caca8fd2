"""Joining a fleet and renewing the certificate. Runs in processes of its own, so that the agent never loads it."""
