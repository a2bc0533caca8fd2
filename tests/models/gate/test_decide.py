from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.models.gate.decide import (
    INT8_MARGIN,
    INT8_SHARE,
    Limits,
    decide,
    golden_tolerance,
    limits_of,
    metric_drop,
    refusals,
)
from hedgerow.models.gate.evidence import ArtefactEvidence, Candidate
from hedgerow.models.recipe import GateDefaults
from hedgerow.shared.job import GateSpec

LIMITS = Limits(min_agreement=0.95, max_metric_drop=0.02, max_latency_us=1000.0, max_artefact_bytes=10_000)
GOOD = {
    "runtime": "onnxruntime",
    "precision": "int8",
    "size_bytes": 5000,
    "agreement": 0.99,
    "scores": {"accuracy": 0.89},
    "latency_p50_us": 50.0,
    "latency_p99_us": 90.0,
    "non_finite": 0,
    "error": 0.2,
    "golden_error": 0.1,
}


def artefact(**changes: object) -> ArtefactEvidence:
    return ArtefactEvidence(**{**GOOD, **changes})  # type: ignore[arg-type]


def candidate(*artefacts: ArtefactEvidence, **changes: object) -> Candidate:
    fields = {
        "metric": "accuracy",
        "higher_is_better": True,
        "scores": {"accuracy": 0.9},
        "champion_scores": {},
        "magnitude": 4.0,
        "artefacts": artefacts or (artefact(),),
    }
    return Candidate(**{**fields, **changes})  # type: ignore[arg-type]


def failed(found: Candidate, limits: Limits = LIMITS) -> list[str]:
    return [check.name for check in decide(found, limits) if not check.passed]


def test_a_good_candidate_passes_every_check() -> None:
    checks = decide(candidate(artefact(), artefact(runtime="litert")), LIMITS)

    assert all(check.passed for check in checks)
    assert refusals(checks) == ()
    assert len(checks) == 12, "six per artefact"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"agreement": 0.94}, "agreement"),
        ({"agreement": math.nan}, "agreement"),
        ({"scores": {"accuracy": 0.87}}, "metric-drop"),
        ({"scores": {"accuracy": math.nan}}, "metric-drop"),
        ({"scores": {}}, "metric-drop"),
        ({"golden_error": 1.01}, "golden"),
        ({"golden_error": math.nan}, "golden"),
        ({"size_bytes": 10_001}, "size"),
        ({"latency_p50_us": 1001.0}, "latency"),
        ({"non_finite": 1}, "non-finite"),
    ],
)
def test_each_shortcoming_fails_its_own_check_and_is_named(changes: dict[str, object], name: str) -> None:
    found = candidate(artefact(**changes))

    assert failed(found) == [f"onnxruntime.int8.{name}"]
    (reason,) = refusals(decide(found, LIMITS))
    assert reason.startswith(f"onnxruntime.int8.{name}: ")


def test_limits_themselves_are_allowed() -> None:
    found = artefact(agreement=0.95, size_bytes=10_000, latency_p50_us=1000.0, scores={"accuracy": 0.5})
    limits = Limits(0.95, 0.25, 1000.0, 10_000)

    assert failed(candidate(found, scores={"accuracy": 0.75}), limits) == []


def test_one_bad_artefact_refuses_the_candidate() -> None:
    assert failed(candidate(artefact(), artefact(runtime="litert", agreement=0.1))) == [
        "litert.int8.agreement"
    ]


def test_a_candidate_worse_than_the_champion_is_refused() -> None:
    worse = candidate(champion_scores={"accuracy": 0.93})

    assert failed(worse) == ["champion.metric-drop"]
    assert failed(candidate(champion_scores={"accuracy": 0.91})) == []


def test_a_champion_without_the_metric_is_no_bar() -> None:
    assert failed(candidate(champion_scores={"other": 5.0})) == []


def test_a_metric_that_falls_is_better_where_the_recipe_says_so() -> None:
    losses = candidate(
        artefact(scores={"loss": 0.5}), metric="loss", higher_is_better=False, scores={"loss": 0.6}
    )

    assert failed(losses) == []
    assert metric_drop(losses, 0.6, 0.5) == pytest.approx(-0.1)


def test_nothing_exported_is_refused() -> None:
    assert failed(Candidate("m", True, {}, {}, 1.0, ())) == ["artefacts"]


def test_a_jobs_limits_go_before_the_recipes() -> None:
    defaults = GateDefaults(0.9, 0.05, 20_000.0, 1_000_000)

    assert limits_of(GateSpec(), defaults) == Limits(0.9, 0.05, 20_000.0, 1_000_000)
    asked = GateSpec(min_agreement=0.0, max_metric_drop=0.0, max_latency_us=5.0, max_artefact_bytes=1)
    assert limits_of(asked, defaults) == Limits(0.0, 0.0, 5.0, 1)


def test_golden_tolerance_follows_the_worst_int8_artefact() -> None:
    found = candidate(
        artefact(error=0.2), artefact(runtime="litert", error=0.4), artefact(precision="float32", error=9)
    )

    tolerance = golden_tolerance(found)

    assert tolerance["float32"] == pytest.approx(1e-4 + 4e-3)
    assert tolerance["int8"] == pytest.approx(tolerance["float32"] + INT8_MARGIN * 0.4)


def test_the_one_sample_beyond_the_calibrated_range_may_be_a_golden_one() -> None:
    found = candidate(artefact(error=0.4, golden_error=0.99), magnitude=20.0)

    assert failed(found) == []
    assert golden_tolerance(found)["int8"] > 0.99, "devices see the difference that the server saw"


def test_int8_answers_that_tell_nothing_fail_however_alike_they_are_elsewhere() -> None:
    found = candidate(artefact(error=5.0, golden_error=5.0), magnitude=19.0)

    assert failed(found) == ["onnxruntime.int8.golden"]
    assert golden_tolerance(found)["int8"] == pytest.approx(INT8_SHARE * 19.0, abs=1e-3)


numbers = st.one_of(st.floats(), st.sampled_from([0.0, 0.95, 0.02]))


@given(agreement=numbers, score=numbers, latency=numbers, golden=numbers, error=numbers)
def test_no_value_passes_that_is_not_a_number(
    agreement: float, score: float, latency: float, golden: float, error: float
) -> None:
    found = candidate(
        artefact(
            agreement=agreement,
            scores={"accuracy": score},
            latency_p50_us=latency,
            golden_error=golden,
            error=error,
        )
    )
    for check in decide(found, LIMITS):
        if math.isnan(check.value) or math.isnan(check.limit):
            assert not check.passed
        if check.passed:
            bar = check.limit
            assert check.value >= bar if check.name.endswith("agreement") else check.value <= bar
