"""How the memory of ours grows with the population: 10,000 devices, 100 a round, against the data and copies of the model.

Two engines are measured: one with a small population and a small model, one with a large population and a large model. What the
second takes more is the data, the copies of the model, and what nobody explained. Pages of libraries are left out: what share of
them an engine has depends on whoever else runs.
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
from hedgerow.simulations.flower.processes import WRITTEN

COPIES: Final = 3
"""Wanted: at most so many copies of the model a worker."""
COHORT: Final = 100
SMALL: Final = 100
_ROUNDS = 2
_TIMEOUT_S = 600.0


def measure_growth(workers: int, quick: bool = False) -> dict[str, Any]:
    """Return peak PSS of both, opening and in rounds, and how many copies of the model a worker the growth beyond the data is."""
    devices = 2_000 if quick else 10_000
    wide = {"filters": 16, "dense": 2048}
    # Too large to be trained side by side, as the large one is: trying that takes five models for each of 128 devices, which
    # the large one would then not seem to need.
    narrow = {"filters": 16, "dense": 700}
    # Dirichlet draws that leave none of 10,000 devices without examples do not come up.
    small = image_task(20 * SMALL, SMALL, narrow, even=True)
    large = image_task(20 * devices, devices, wide, even=True)
    before, after = _peaks(small, workers), _peaks(large, workers)
    data = _data_bytes(large) - _data_bytes(small)
    model = large.model.nbytes - small.model.nbytes
    result: dict[str, Any] = {
        "bench": "simulation-memory",
        "devices": devices,
        "cohort": COHORT,
        "workers": workers,
        "data_mib": _mib(data),
        "model_mib": _mib(model),
        "wanted_copies_per_worker": COPIES,
    }
    for when in ("opening", "rounds"):
        growth = after[when] - before[when]
        result[when] = {
            "small_pss_mib": _mib(before[when]),
            "large_pss_mib": _mib(after[when]),
            "growth_mib": _mib(growth),
            "copies_per_worker": round((growth - data) / model / workers, 2),
        }
    met = all(result[when]["copies_per_worker"] <= COPIES for when in ("opening", "rounds"))
    return {**result, "met": met}


def _peaks(task: PeerTask, workers: int) -> dict[str, int]:
    """Return peak PSS while an engine opens, kernels being timed, and in its rounds."""
    tell(f"memory with {task.devices} devices")
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as folder:
        write_task(task, Path(folder))
        peer = Starter(workers).start(LEAN, Path(folder))
        try:
            with PeakPss(peer.pid, fields=WRITTEN) as opening:
                peer.configure(Setup(COHORT), _TIMEOUT_S)
            with PeakPss(peer.pid, fields=WRITTEN) as rounds:
                peer.rounds(_ROUNDS, _TIMEOUT_S)
        finally:
            peer.end()
    return {"opening": opening.bytes_, "rounds": rounds.bytes_}


def _mib(size: int) -> float:
    return round(size / 2**20, 1)


def _data_bytes(task: PeerTask) -> int:
    return task.x.nbytes + task.offsets.nbytes + (0 if task.y is None else task.y.nbytes)


def growth_lines(result: dict[str, Any]) -> str:
    """Return the result as lines for a person."""
    lines = [
        f"{SMALL} devices and a small model beside {result['devices']} devices and one larger by {result['model_mib']} MiB; "
        f"{result['cohort']} a round, {result['workers']} workers; more data: {result['data_mib']} MiB"
    ]
    for when in ("opening", "rounds"):
        found = result[when]
        lines.append(
            f"{when:<8} peak PSS {found['small_pss_mib']} → {found['large_pss_mib']} MiB: growth {found['growth_mib']} MiB = "
            f"data + {found['copies_per_worker']} copies of the model a worker "
            f"(wanted: at most {result['wanted_copies_per_worker']})"
        )
    return "\n".join(lines)
