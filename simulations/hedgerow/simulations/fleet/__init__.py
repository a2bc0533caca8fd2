"""Engine ``fleet``: a scenario's job on a real server and real agents, all processes of this machine, with faults."""
