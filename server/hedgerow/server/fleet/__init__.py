"""The fleet as the server knows it: devices, what is wanted of them, how they are, what they report."""

from hedgerow.server.fleet.service import Fleet, FleetSettings

__all__ = ["Fleet", "FleetSettings"]
