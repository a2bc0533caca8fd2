"""The devices that a job may draw from: read anew while it runs, or frozen when it begins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from hedgerow.server.jobs.seams import DesiredJobs, Fleet
from hedgerow.shared.job import PopulationSpec
from hedgerow.shared.messages import JobAssignment

_FRESH_S: Final = 1.0


class Population:
    """Answers who may be drawn, at most a second old, and asks devices that are new in it to run a trainer."""

    def __init__(
        self, fleet: Fleet, desired: DesiredJobs, spec: PopulationSpec, assignment: JobAssignment
    ) -> None:
        self._fleet = fleet
        self._desired = desired
        self._spec = spec
        self._assignment = assignment
        self._devices: tuple[str, ...] = ()
        self._asked: set[str] = set()
        self._read_at = float("-inf")

    async def __call__(self) -> Sequence[str]:
        """Return the registered devices that match, online or not."""
        if time.monotonic() - self._read_at > _FRESH_S:
            self._devices = await asyncio.to_thread(self._read)
            self._read_at = time.monotonic()
        return self._devices

    def _read(self) -> tuple[str, ...]:
        devices = tuple(self._fleet.population(self._spec))
        new = sorted(set(devices) - self._asked)
        if new:
            self._desired.set_job(new, self._assignment)
            self._asked.update(new)
        return devices


class FrozenPopulation:
    """The devices that a central job began with. Who joins later is not drawn; who leaves counts in N all the same.

    A coin is thrown for each of them in every round, so that sampling rate and denominator stay what the ledger says.
    """

    def __init__(self, devices: Sequence[str], desired: DesiredJobs, assignment: JobAssignment) -> None:
        self._devices = tuple(devices)
        self._desired = desired
        self._assignment = assignment
        self._asked = False

    async def __call__(self) -> Sequence[str]:
        """Return all of them, online, revoked or not; the first call asks them to run a trainer."""
        if not self._asked:
            await asyncio.to_thread(self._desired.set_job, self._devices, self._assignment)
            self._asked = True
        return self._devices
