"""What jobs need of the other parts of the server, as the least that they need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from hedgerow.shared.job import Job, PopulationSpec
from hedgerow.shared.messages import JobAssignment
from hedgerow.shared.privacy.central_report import CentralRecord


class Described(Protocol):
    """What the workbench says of a recipe with its parameters."""

    @property
    def n_parameters(self) -> int:
        """Length of the flat model vector."""

    @property
    def recipe_hash(self) -> str:
        """Hash of the recipe's code on this server."""


class Bench(Protocol):
    """The workbench: a child process that knows torch."""

    async def describe(self, recipe: str, parameters: dict[str, Any]) -> Described:
        """Describe a recipe. Raises ConfigError if it is not installed or refuses the parameters."""

    async def initial(self, recipe: str, parameters: dict[str, Any], seed: int) -> bytes:
        """Return an untrained model, float32 little endian."""

    async def score(self, recipe: str, parameters: dict[str, Any], model: bytes) -> dict[str, float]:
        """Return named scores of a model on the recipe's public set."""


class Fleet(Protocol):
    """The registered devices. Both methods may touch the database: they are called from a thread."""

    def population(self, spec: PopulationSpec) -> Sequence[str]:
        """Return the registered, not revoked devices that match, online or not."""

    def recipe_hashes(self, recipe: str, devices: Sequence[str]) -> Mapping[str, str | None]:
        """Return what devices report of a recipe: its code's hash, None if they have none.

        A device that has never reported anything is left out.
        """


class DesiredJobs(Protocol):
    """Where devices learn that a job wants them. Called from a thread."""

    def set_job(self, devices: Sequence[str], assignment: JobAssignment) -> None:
        """Ask ``devices`` to run a trainer for the job. Idempotent."""

    def clear_job(self, job_id: str) -> None:
        """Ask nobody any more. Idempotent."""


class TrainedJob(msgspec.Struct, frozen=True):
    """A job whose rounds are done, as it is handed over for packaging.

    ``model`` is float32 little endian. ``epsilon`` and ``delta`` are the largest that a device claims, None without privacy.
    ``central`` is what the privacy ledger holds, in central modes alone. ``scores`` are the server's of the final model,
    ``initial_scores`` of the untrained one.
    """

    job_id: str
    job: Job
    recipe_hash: str
    model: bytes
    rounds: int
    epsilon: float | None
    delta: float | None
    devices: int
    scores: dict[str, float]
    initial_scores: dict[str, float]
    central: CentralRecord | None = None


OnTrained = Callable[[TrainedJob], Awaitable[dict[str, Any]]]
"""Packages, registers and rolls out; its result is kept with the job. Must be idempotent: a restart calls it again."""
