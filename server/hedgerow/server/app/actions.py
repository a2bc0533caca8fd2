"""What operators can do, put together from the server's parts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.fleet.service import Fleet
from hedgerow.server.jobs.service import JobService
from hedgerow.shared.errors import ConfigError


class ServerActions:
    """Implements ``Actions`` for the operator listener."""

    def __init__(self, jobs: JobService, rollouts: Rollouts, fleet: Fleet) -> None:
        self._jobs = jobs
        self._rollouts = rollouts
        self._fleet = fleet

    async def submit_job(self, toml: str) -> str:
        """Check and queue a job; return its id. Raises ConfigError naming key and remedy."""
        return (await self._jobs.submit(toml.encode(), "job")).job_id

    async def cancel_job(self, job_id: str) -> None:
        """Stop a job after what is committed. Raises ConfigError if it cannot be."""
        await self._jobs.cancel(job_id)

    async def rollback(self, model: str) -> str:
        """Send the fleet back to the previous version; return the rollout's id."""
        return str((await asyncio.to_thread(self._rollouts.rollback, model)).id)

    async def join_token(self, groups: Sequence[str], ttl_s: float) -> str:
        """Return a one-use join token."""
        token = await asyncio.to_thread(self._fleet.tokens.issue, tuple(groups), life_s=ttl_s)
        return token.text()

    async def revoke_device(self, device: str) -> None:
        """Shut a device out at once. Raises ConfigError if there is none of that name."""
        await asyncio.to_thread(self._fleet.devices.revoke, device, "revoked by an operator")

    async def cohort(self, job_id: str, round_number: int) -> tuple[str, ...]:
        """Return who was drawn into a round. Raises ConfigError if there is no such round."""
        record = await self._jobs.cohort_for_admins(job_id, round_number)
        if record is None:
            raise ConfigError(f"job {job_id!r} has no round {round_number}")
        return record.cohort
