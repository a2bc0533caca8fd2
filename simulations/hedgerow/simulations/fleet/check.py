"""What a scenario may ask of a fleet of real processes; told before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

from hedgerow.server.strategies.catalogue import check_strategy
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.simulations.scenario.spec import Scenario

AGENT_BYTES: Final = 330_000_000
"""An agent with its trainer and broker session, proportional memory: 45 MB and 260 to 290 MB with a small model."""
SERVER_BYTES: Final = 600_000_000
"""Server and its workbench, which scores and packages."""


def check_fleet_scenario(scenario: Scenario, where: str) -> None:
    """Raise ConfigError, naming the field and what to do, for what real processes cannot do here."""
    check_strategy(scenario.job, where)
    _check_count(scenario.population.devices, free_bytes(), where)
    if scenario.job.privacy.mode == "none":
        return
    # A ledger holds a job to the samples that it began with: others under the same numbers would be uncharged.
    drift = scenario.population.drift.from_round
    if drift is not None and drift > 1:
        raise ConfigError(f"{where}: population.drift.from_round: {_FIXED}; expected 1 or none, got {drift}")
    byzantine = scenario.faults.byzantine
    if byzantine is not None and byzantine.kind == "label-flip" and byzantine.from_round > 1:
        raise ConfigError(
            f"{where}: faults.byzantine.from_round: {_FIXED}; expected 1 with kind 'label-flip', got {byzantine.from_round}"
        )


_FIXED: Final = (
    "with engine 'fleet' and privacy a device trains a job on the samples that it had at its begin"
)


def most_devices(available: int) -> int:
    """Return how many devices fit into so many bytes."""
    return max(0, (available - SERVER_BYTES) // AGENT_BYTES)


def free_bytes() -> int:
    """Return the memory that processes may still take: of the machine, or of the control group if that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))


def job_of(scenario: Scenario) -> Job:
    """Return the scenario's job for this fleet, which is the population: its filters are left out."""
    import msgspec

    from hedgerow.shared.job import PopulationSpec

    return msgspec.structs.replace(scenario.job, population=PopulationSpec())


def _check_count(devices: int, available: int, where: str) -> None:
    most = most_devices(available)
    if devices > most:
        raise ConfigError(
            f"{where}: population.devices: engine 'fleet' runs an agent and a trainer for each device, about "
            f"{AGENT_BYTES // 10**6} MB together, and {available / 1e9:.1f} GB are free here: expected at most {most}, got "
            f"{devices}; set population.devices={most}, or take engine lean"
        )
