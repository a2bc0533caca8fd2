"""Model slots on the device: two of them, an atomic switch, and only files that still are what was installed."""

from hedgerow.edge_agent.slots.policy import Verdict, may_install
from hedgerow.edge_agent.slots.record import Confirmed, Installed
from hedgerow.edge_agent.slots.slots import Choice, Slots

__all__ = ["Choice", "Confirmed", "Installed", "Slots", "Verdict", "may_install"]
