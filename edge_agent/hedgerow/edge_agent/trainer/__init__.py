"""Training on the device: a child process that trains and answers rounds, and the supervisor that runs it."""
