"""How the memory of ours grows with the population: 10,000 devices, 100 a round, against the data and copies of the model.

Two engines are measured: one with a small population and a small model, one with a large population and a large model. What the
second takes more is the data, the copies of the model, and what nobody explained.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from hedgerow.simulations.bench.simulation_peers.task import PeerTask, Setup, write_task
from hedgerow.simulations.bench.simulation_run.engines import LEAN, Starter
from hedgerow.simulations.bench.simulation_run.pss import PeakPss
from hedgerow.simulations.bench.simulation_run.turns import tell
from hedgerow.simulations.bench.simulation_run.workloads import image_task

COPIES: Final = 3
"""Wanted: at most so many copies of the model a worker."""
COHORT: Final = 100
SMALL: Final = 100
_ROUNDS = 2
_TIMEOUT_S = 600.0


def measure_growth(workers: int, quick: bool = False) -> dict[str, Any]:
    """Return peak PSS of both, the growth, and how many copies of the model a worker it comes to beyond the data."""
    devices = 2_000 if quick else 10_000
    wide = {"filters": 16, "dense": 2048}
    small = image_task(20 * SMALL, SMALL)
    large = image_task(20 * devices, devices, wide)
    before, after = _peak(small, workers), _peak(large, workers)
    growth = after - before
    data = _data_bytes(large) - _data_bytes(small)
    model = large.model.nbytes - small.model.nbytes
    copies = (growth - data) / model / workers
    return {
        "bench": "simulation-memory",
        "devices": devices,
        "cohort": COHORT,
        "workers": workers,
        "data_mib": round(data / 2**20, 1),
        "model_mib": round(model / 2**20, 2),
        "small_pss_mib": round(before / 2**20, 1),
        "large_pss_mib": round(after / 2**20, 1),
        "growth_mib": round(growth / 2**20, 1),
        "copies_per_worker": round(copies, 2),
        "wanted_copies_per_worker": COPIES,
        "met": copies <= COPIES,
    }


def _peak(task: PeerTask, workers: int) -> int:
    tell(f"memory with {task.devices} devices")
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as folder:
        write_task(task, Path(folder))
        peer = Starter(workers).start(LEAN, Path(folder))
        try:
            with PeakPss(peer.pid) as peak:
                peer.configure(Setup(COHORT), _TIMEOUT_S)
                peer.rounds(_ROUNDS, _TIMEOUT_S)
        finally:
            peer.end()
    return peak.bytes_


def _data_bytes(task: PeerTask) -> int:
    return task.x.nbytes + task.offsets.nbytes + (0 if task.y is None else task.y.nbytes)


def growth_lines(result: dict[str, Any]) -> str:
    """Return the result as lines for a person."""
    return (
        f"peak PSS with {SMALL} devices and a small model {result['small_pss_mib']} MiB, with {result['devices']} devices, "
        f"{result['cohort']} a round, {result['large_pss_mib']} MiB\n"
        f"growth {result['growth_mib']} MiB = data {result['data_mib']} MiB + {result['copies_per_worker']} copies of the "
        f"model ({result['model_mib']} MiB) a worker (wanted: at most {result['wanted_copies_per_worker']})"
    )
