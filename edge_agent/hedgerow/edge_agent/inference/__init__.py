"""Inference on the device: one interface over the engines, and the chain that always has an answer."""
