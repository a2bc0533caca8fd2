"""``hedgerow doctor``: names what is wrong with this installation, this device or this server, and what helps."""

from hedgerow.edge_agent.doctor.command import main

__all__ = ["main"]
