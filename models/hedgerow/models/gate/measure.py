"""Measures an artefact on a recipe's public set: agreement, scores, golden samples, latency."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from hedgerow.models.gate.engines import One, open_one, run_all
from hedgerow.models.gate.evidence import ArtefactEvidence
from hedgerow.models.recipe import Parameters, PublicSet, Recipe
from hedgerow.shared.bundle import Precision, Runtime

Floats = npt.NDArray[np.float32]

WARM_UP = 20
TIMED = 200
MAX_SAMPLES = 2048


def measure(
    runtime: Runtime,
    precision: Precision,
    data: bytes,
    recipe: Recipe,
    parameters: Parameters,
    public: PublicSet,
    reference: Floats,
) -> ArtefactEvidence:
    """Return what the artefact does on the public set; ``reference`` holds the float module's outputs there.

    Agreement and errors are taken over at most ``MAX_SAMPLES`` samples that neither calibrated int8 nor are golden.
    """
    one = open_one(runtime, data)
    used = np.concatenate([public.golden, public.calibration])
    plain = np.setdiff1d(np.arange(len(public.x)), used)[:MAX_SAMPLES]
    answers = run_all(one, public.x[plain])
    golden = run_all(one, public.x[public.golden])
    finite = np.isfinite(answers).all() and np.isfinite(golden).all()
    p50, p99 = latency_us(one, public.x[:1])
    return ArtefactEvidence(
        runtime,
        precision,
        len(data),
        recipe.agreement(reference[plain], answers) if finite else 0.0,
        recipe.score(lambda x: run_all(one, x), public, parameters) if finite else {},
        p50,
        p99,
        int((~np.isfinite(answers)).sum() + (~np.isfinite(golden)).sum()),
        _worst(reference[plain], answers),
        _worst(reference[public.golden], golden),
    )


def latency_us(one: One, sample: Floats) -> tuple[float, float]:
    """Return p50 and p99 of one call in microseconds, after a warm-up."""
    for _ in range(WARM_UP):
        one(sample)
    taken = np.empty(TIMED, np.int64)
    for n in range(TIMED):
        start = time.perf_counter_ns()
        one(sample)
        taken[n] = time.perf_counter_ns() - start
    p50, p99 = np.percentile(taken, [50, 99])
    return float(p50) / 1000, float(p99) / 1000


def _worst(reference: Floats, answers: Floats) -> float:
    return float(np.abs(reference - answers).max(initial=0.0))
