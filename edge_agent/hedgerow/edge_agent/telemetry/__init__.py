"""Telemetry: payloads from a broker or a file become checked readings, rows, windows and stored samples."""
