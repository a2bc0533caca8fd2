"""The device side: telemetry, samples, inference, slots, outbox, local API, and the trainer as a child process."""
