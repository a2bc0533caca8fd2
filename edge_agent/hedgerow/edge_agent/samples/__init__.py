"""Samples as a device keeps them: one bounded store keyed by tensor spec; they never leave the device."""
