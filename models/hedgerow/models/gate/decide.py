"""The gate's decisions: pure functions from evidence and limits to checks, each with value and limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hedgerow.models.gate.evidence import ArtefactEvidence, Candidate
from hedgerow.models.recipe import GateDefaults
from hedgerow.shared.bundle import GateCheck
from hedgerow.shared.job import GateSpec

FLOAT_SHARE = 1e-3
FLOAT_FLOOR = 1e-4
INT8_MARGIN = 1.5
"""Room for other processors' int8 kernels, which round the last digit differently."""
INT8_SHARE = 0.25
"""The most that int8 may differ on a golden sample, as a share of the largest output: beyond it, it tells nothing."""


@dataclass(frozen=True)
class Limits:
    """What a candidate must reach: the job's limits, and the recipe's where the job names none."""

    min_agreement: float
    max_metric_drop: float
    max_latency_us: float
    max_artefact_bytes: int


def limits_of(asked: GateSpec, defaults: GateDefaults) -> Limits:
    """Return the limits that hold for a job."""
    return Limits(
        defaults.min_agreement if asked.min_agreement is None else asked.min_agreement,
        defaults.max_metric_drop if asked.max_metric_drop is None else asked.max_metric_drop,
        defaults.max_latency_us if asked.max_latency_us is None else asked.max_latency_us,
        defaults.max_artefact_bytes if asked.max_artefact_bytes is None else asked.max_artefact_bytes,
    )


def golden_tolerance(candidate: Candidate) -> dict[str, float]:
    """Return per precision the largest absolute difference that a golden sample may show.

    float32: a thousandth of the largest output. int8: that, and ``INT8_MARGIN`` times the largest difference that the
    int8 artefacts show on the public samples, but at most ``INT8_SHARE`` of the largest output. The golden samples
    count among the public ones: a sample in fifty or so goes beyond the calibrated range and differs ten times as
    much as the others, and where it happens to be golden, the others are no measure of it.
    """
    floats = FLOAT_FLOOR + FLOAT_SHARE * candidate.magnitude
    quantised = [artefact for artefact in candidate.artefacts if artefact.precision == "int8"]
    seen = max((max(artefact.error, artefact.golden_error) for artefact in quantised), default=0.0)
    ceiling = FLOAT_FLOOR + INT8_SHARE * candidate.magnitude
    return {"float32": floats, "int8": min(floats + INT8_MARGIN * seen, ceiling)}


def decide(candidate: Candidate, limits: Limits) -> tuple[GateCheck, ...]:
    """Return every check of a candidate; it may be registered only if all have passed."""
    tolerance = golden_tolerance(candidate)
    checks = [_champion(candidate, limits)] if candidate.metric in candidate.champion_scores else []
    for artefact in candidate.artefacts:
        checks += _of_artefact(candidate, artefact, limits, tolerance[artefact.precision])
    if not candidate.artefacts:
        checks.append(GateCheck("artefacts", False, 0.0, 1.0, "nothing could be exported"))
    return tuple(checks)


def refusals(checks: tuple[GateCheck, ...]) -> tuple[str, ...]:
    """Return one sentence per failed check, empty if the candidate may pass."""
    return tuple(
        f"{check.name}: {check.value:.6g} where the limit is {check.limit:.6g}"
        + (f" ({check.detail})" if check.detail else "")
        for check in checks
        if not check.passed
    )


def metric_drop(candidate: Candidate, reference: float, value: float) -> float:
    """Return how much worse ``value`` is than ``reference``, in the metric's unit; negative where it is better."""
    return reference - value if candidate.higher_is_better else value - reference


def _champion(candidate: Candidate, limits: Limits) -> GateCheck:
    drop = metric_drop(
        candidate,
        candidate.champion_scores[candidate.metric],
        candidate.scores.get(candidate.metric, math.nan),
    )
    return _at_most(
        "champion.metric-drop", drop, limits.max_metric_drop, f"{candidate.metric} against the champion"
    )


def _of_artefact(
    candidate: Candidate, artefact: ArtefactEvidence, limits: Limits, tolerance: float
) -> list[GateCheck]:
    reference = candidate.scores.get(candidate.metric, math.nan)
    drop = metric_drop(candidate, reference, artefact.scores.get(candidate.metric, math.nan))
    name = artefact.name
    return [
        _at_most(f"{name}.non-finite", artefact.non_finite, 0, "output values on the public set"),
        _at_least(f"{name}.agreement", artefact.agreement, limits.min_agreement, "with the float model"),
        _at_most(
            f"{name}.metric-drop", drop, limits.max_metric_drop, f"{candidate.metric} against the float model"
        ),
        _at_most(f"{name}.golden", artefact.golden_error, tolerance, "largest difference on golden samples"),
        _at_most(f"{name}.size", artefact.size_bytes, limits.max_artefact_bytes, "bytes"),
        _at_most(
            f"{name}.latency", artefact.latency_p50_us, limits.max_latency_us, "p50 in us, on the server"
        ),
    ]


def _at_most(name: str, value: float, limit: float, detail: str) -> GateCheck:
    # not "value > limit": a NaN must fail
    return GateCheck(name, bool(value <= limit), float(value), float(limit), detail)


def _at_least(name: str, value: float, limit: float, detail: str) -> GateCheck:
    return GateCheck(name, bool(value >= limit), float(value), float(limit), detail)
