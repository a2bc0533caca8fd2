"""The server as one process: its folder and settings, its parts put together, its start and stop."""
