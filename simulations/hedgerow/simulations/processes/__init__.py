"""Server, agents and broker as processes on this machine: started, watched and ended by whoever plays with them."""
