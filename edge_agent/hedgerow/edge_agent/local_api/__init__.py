"""The local API: predictions and status for programs on the same device, over HTTP on the loopback."""
