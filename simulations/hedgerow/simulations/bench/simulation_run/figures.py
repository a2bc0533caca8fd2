"""From measured rounds to rows: medians, ratios to ours, the share of what the machine could do, and what is wanted."""

from __future__ import annotations

import math
import statistics
from typing import Any, Final

from hedgerow.simulations.bench.simulation_peers.sgemm import FLOPS
from hedgerow.simulations.bench.simulation_peers.task import PeerTask
from hedgerow.simulations.bench.simulation_run.engines import LEAN
from hedgerow.simulations.bench.simulation_run.turns import TOLERANCE, Figures, Measured

WANTED: Final[dict[tuple[str, str], float]] = {
    ("flower", "synth28"): 8.0,
    ("flower", "digits"): 25.0,
    ("flower", "mlp"): 50.0,
    ("flower", "autoencoder"): 50.0,
    ("plain", "synth28"): 3.0,
    ("plain", "digits"): 3.0,
    ("plain", "mlp"): 8.0,
    ("plain", "autoencoder"): 3.0,
    ("pfl", "synth28"): 1.8,
    ("pfl", "digits"): 1.8,
    ("pfl", "mlp"): 1.8,
    ("pfl", "autoencoder"): 1.8,
}
"""How many times quicker than each peer a round of ours should be."""
WANTED_PRIVATE: Final = {"flower": 5.0}
WANTED_OF_FLOOR: Final = {"synth28": 0.45}
WANTED_FIRST_ROUND_S: Final = {"digits": 3.0}


def wanted_ratio(engine: str, family: str, private: bool) -> float | None:
    """Return how many times quicker than ``engine`` ours should be, or None where nothing was set."""
    return WANTED_PRIVATE.get(engine) if private else WANTED.get((engine, family))


def rows_of(measured: Measured, task: PeerTask, flops_per_sample: int) -> dict[str, Any]:
    """Return one workload's figures: a row per engine, and the floor.

    The floor is the time that the machine's measured rate of float32 products would take for the operations of the same
    rounds; ``of_floor`` is its share of our median round.
    """
    workload = measured.workload
    ours = measured.engines.get(LEAN, Figures())
    rate = FLOPS / statistics.median(measured.products) if measured.products else None
    samples = statistics.median(task.samples(n, workload.cohort) for n in measured.rounds)
    floor = None if rate is None else samples * flops_per_sample / rate
    median = statistics.median(ours.seconds) if ours.seconds else None
    return {
        "workload": workload.name,
        "family": workload.family,
        "cohort": workload.cohort,
        "dp": measured.private,
        "rounds": len(measured.rounds),
        "samples_per_round": samples,
        "mflop_per_sample": round(flops_per_sample / 1e6, 4),
        "sgemm_gflop_s": None if rate is None else round(rate / 1e9, 1),
        "floor_s": None if floor is None else _rounded(floor),
        "of_floor": None if floor is None or median is None or measured.private else round(floor / median, 4),
        "wanted_of_floor": None if measured.private else WANTED_OF_FLOOR.get(workload.family),
        "engines": [_row(name, figures, ours, measured) for name, figures in measured.engines.items()],
    }


def _row(name: str, figures: Figures, ours: Figures, measured: Measured) -> dict[str, Any]:
    some = bool(figures.seconds)
    both = some and bool(ours.seconds) and name != LEAN
    wanted = wanted_ratio(name, measured.workload.family, measured.private)
    ratio = statistics.median(figures.seconds) / statistics.median(ours.seconds) if both else None
    return {
        "engine": name,
        "s_per_round": _rounded(statistics.median(figures.seconds)) if some else None,
        "min_s": _rounded(min(figures.seconds)) if some else None,
        "ratio": None if ratio is None else round(ratio, 2),
        "ratio_of_minima": round(min(figures.seconds) / min(ours.seconds), 2) if both else None,
        "wanted_ratio": wanted,
        "met": None if ratio is None or wanted is None else ratio >= wanted,
        # JSON has no word for what is not finite; ``same`` says it.
        "difference": figures.difference if _finite(figures.difference) else None,
        "same": None if figures.difference is None else figures.difference <= TOLERANCE,
        "peak_pss_mib": None if figures.pss is None else round(figures.pss / 2**20),
        "error": figures.error,
    }


def starts_of(family: str, first_round_s: dict[str, float], errors: dict[str, str]) -> dict[str, Any]:
    """Return how long each engine took from the start of its process to the end of its first round."""
    wanted = WANTED_FIRST_ROUND_S.get(family)
    ours = first_round_s.get(LEAN)
    return {
        "family": family,
        "first_round_s": {name: round(value, 2) for name, value in first_round_s.items() if name != "sgemm"},
        "wanted_s": wanted,
        "met": None if wanted is None or ours is None else ours <= wanted,
        "errors": errors,
    }


def all_met(result: dict[str, Any]) -> bool:
    """Say whether every wanted figure was reached, by engines that all ran and came to the same model."""
    rows = [row for found in result["workloads"] for row in found["engines"]]
    judged = [row["met"] is True for row in rows if row["wanted_ratio"] is not None]
    judged += [row["same"] is True for row in rows]
    judged += [start["met"] is True for start in result["starts"] if start["wanted_s"] is not None]
    judged += [
        found["of_floor"] is not None and found["of_floor"] >= found["wanted_of_floor"]
        for found in result["workloads"]
        if found["wanted_of_floor"] is not None
    ]
    return bool(judged) and all(judged)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")
