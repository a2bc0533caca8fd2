"""The device side of Flower's fleet protocol: the only device code that imports Flower."""

from hedgerow.edge_agent.trainer.fleet.calls import Outcome
from hedgerow.edge_agent.trainer.fleet.errors import JobClosedError, ReplacedError
from hedgerow.edge_agent.trainer.fleet.node import FleetNode
from hedgerow.edge_agent.trainer.fleet.objects import Handle

__all__ = ["FleetNode", "Handle", "JobClosedError", "Outcome", "ReplacedError"]
