"""Why an update ended early: one error per reason that the agent tells apart."""

from __future__ import annotations

from hedgerow.edge_agent.updater.result import Reason
from hedgerow.shared.errors import HedgerowError


class UpdateError(HedgerowError):
    """An update that ends here; ``reason`` is one of the closed set of the result."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
