"""Populations: whose data a simulation trains on, how it is divided, and what each device is like."""
