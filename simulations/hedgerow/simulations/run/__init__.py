"""Running a scenario: the loop over rounds, simulated clocks, privacy, checkpoints, and what is recorded."""
