"""Layers as steps over buffers that stay: forward, backward, and per-example norms for DP-SGD, for many devices at once."""
