"""Which trainers are connected, and for which job. Pure bookkeeping: the clock is handed in.

A trainer is one process on a device for one job, named by a random activation. A newer activation of the same device
and job replaces the older one: there is one certificate, hence one rightful process. A stock SuperNode has neither job
nor activation (both empty) and serves every job whose wire it speaks.
"""

from __future__ import annotations

from dataclasses import dataclass

ANY_JOB = ""


@dataclass
class Trainer:
    """One connected process."""

    device: str
    job_id: str
    activation: str
    seen: float


class Trainers:
    """The connected trainers, keyed by (device, job); one not heard of for ``lifetime_s`` counts as gone."""

    def __init__(self, lifetime_s: float) -> None:
        self._lifetime_s = lifetime_s
        self._trainers: dict[tuple[str, str], Trainer] = {}

    def activate(self, device: str, job_id: str, activation: str, now: float) -> Trainer | None:
        """Note a trainer and return the one that it replaces, if that is another process."""
        key = (device, job_id)
        before = self._trainers.get(key)
        self._trainers[key] = Trainer(device, job_id, activation, now)
        return before if before is not None and before.activation != activation else None

    def touch(self, device: str, job_id: str, activation: str, now: float) -> bool:
        """Note a sign of life; False if this is not (or no longer) the device's trainer for that job."""
        trainer = self._trainers.get((device, job_id))
        if trainer is None or trainer.activation != activation:
            return False
        trainer.seen = now
        return True

    def knows(self, device: str, job_id: str) -> bool:
        """Whether any process is the device's trainer for the job."""
        return (device, job_id) in self._trainers

    def leave(self, device: str, job_id: str, activation: str) -> Trainer | None:
        """Forget one trainer; another activation is left alone."""
        trainer = self._trainers.get((device, job_id))
        if trainer is None or trainer.activation != activation:
            return None
        return self._trainers.pop((device, job_id))

    def drop(self, device: str, job_id: str | None = None) -> list[Trainer]:
        """Forget and return a device's trainers: of one job, or all of them."""
        keys = [key for key in self._trainers if key[0] == device and job_id in (None, key[1])]
        return [self._trainers.pop(key) for key in keys]

    def expire(self, now: float) -> list[Trainer]:
        """Forget and return those not heard of for the lifetime."""
        keys = [key for key, trainer in self._trainers.items() if now - trainer.seen > self._lifetime_s]
        return [self._trainers.pop(key) for key in keys]

    def has(self, device: str) -> bool:
        """Whether any trainer of the device is connected."""
        return any(key[0] == device for key in self._trainers)

    def online(self, job_id: str, *, stock: bool, now: float) -> frozenset[str]:
        """Devices with a live trainer for the job; ``stock`` counts stock SuperNodes instead."""
        wanted = ANY_JOB if stock else job_id
        return frozenset(
            trainer.device
            for (_, job), trainer in self._trainers.items()
            if job == wanted and now - trainer.seen <= self._lifetime_s
        )
