"""Training one device after another by explicit forward and backward steps over buffers that stay."""
