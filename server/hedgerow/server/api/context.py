"""What the operator listener works with: the reader, the actions, who may do what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hedgerow.server.api.operators import Audit, Operators
from hedgerow.server.api.sessions import Sessions
from hedgerow.server.bus import Bus
from hedgerow.server.monitor.views import AlertView, Reader


class Actions(Protocol):
    """What operators can do; the server composes it from its parts. Errors are HedgerowErrors."""

    async def submit_job(self, toml: str) -> str:
        """Check and queue a job; return its id. Raises ConfigError naming key and remedy."""

    async def cancel_job(self, job_id: str) -> None:
        """Stop a job after what is committed. Raises ConfigError if there is none of that id."""

    async def rollback(self, model: str) -> str:
        """Send the fleet back to the previous version; return the rollout's id."""

    async def join_token(self, groups: Sequence[str], ttl_s: float) -> str:
        """Return a one-use join token."""

    async def revoke_device(self, device: str) -> None:
        """Shut a device out at once. Raises ConfigError if there is none of that name."""

    async def cohort(self, job_id: str, round_number: int) -> tuple[str, ...]:
        """Return who was drawn into a round."""


@dataclass
class OperatorContext:
    """Everything the operator listener needs, composed by the server."""

    reader: Reader
    alerts: Callable[[], list[AlertView]]
    actions: Actions
    operators: Operators
    audit: Audit
    bus: Bus
    sessions: Sessions = field(default_factory=Sessions)
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    secure_cookie: bool = False
