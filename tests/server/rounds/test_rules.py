"""Is a reply counted, and may a round release?"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.ledger.heads import Claim
from hedgerow.server.rounds.link import Reply
from hedgerow.server.rounds.rules import Release, check_header, may_release
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import CohortSpec, Job, Mode, PrivacySpec, StrategySpec, TrainingSpec, TrainReply

NONE = PrivacySpec("none")
EXAMPLE = PrivacySpec("example", epsilon=2.0, delta=1e-5)
SAMPLES = StrategySpec(weighting="samples")


def job(privacy: PrivacySpec = NONE, strategy: StrategySpec | None = None, quorum: int = 1) -> Job:
    return Job(
        name="t",
        recipe="r",
        privacy=privacy,
        strategy=strategy or StrategySpec(),
        cohort=CohortSpec(quorum=quorum),
        training=TrainingSpec(max_samples=100),
    )


def header(**fields: Any) -> TrainReply:
    good: dict[str, Any] = {
        "job_id": "j",
        "round": 3,
        "exchange": 0,
        "n_parameters": 10,
        "packing": "float32",
        "update_bytes": 40,
        "update_sha256": "",
        "ledger_head": "ab",
        "ledger_length": 6,
        "epsilon": 1.0,
        "delta": 1e-6,
    }
    return TrainReply(**(good | fields))


def check(asked: Job, given_header: TrainReply, size: int = 40) -> Any:
    reply = Reply(
        "d",
        "m",
        given_header,
        [memoryview(bytes(size // 2)), memoryview(bytes(size - size // 2))],
        size,
        None,
    )
    return check_header(asked, "j", 3, 0, 10, reply, given_header)


@given(counted=st.integers(0, 50), quorum=st.integers(1, 50), mode=st.sampled_from(get_args(Mode)))
def test_with_privacy_the_number_of_replies_never_withholds_a_release(
    counted: int, quorum: int, mode: Mode
) -> None:
    decision = may_release(job(PrivacySpec(mode), quorum=quorum), counted)
    if mode == "none":
        assert (decision is Release.ABORT) == (counted < quorum)
    else:
        assert decision is (Release.RELEASE if counted >= quorum else Release.RELEASE_WITH_ALERT)


def test_without_privacy_metrics_and_loss_count() -> None:
    accepted = check(job(), header(metrics={"loss": 0.5, "accuracy": 0.9}, n_samples=7))
    assert accepted == (1.0, 0.5, {"loss": 0.5, "accuracy": 0.9}, None)


def test_weighted_by_samples_the_count_is_the_weight() -> None:
    assert check(job(strategy=SAMPLES), header(n_samples=7)).weight == 7.0


def test_with_privacy_nothing_of_the_counts_and_metrics_is_taken() -> None:
    accepted = check(job(EXAMPLE), header(metrics={"loss": 0.5}, n_samples=7))
    assert accepted == (1.0, None, {}, Claim(3, "ab", 6, 1.0, 1e-6))


def test_a_flood_of_metrics_is_bounded() -> None:
    metrics = {f"{'m' * 100}{i}": 1.0 for i in range(500)}
    kept = check(job(), header(metrics=metrics)).metrics
    assert len(kept) <= 32
    assert max(map(len, kept)) <= 64


REFUSED: dict[str, tuple[Job, dict[str, Any], str]] = {
    "another job": (job(), {"job_id": "k"}, "stale"),
    "an earlier round": (job(), {"round": 2}, "stale"),
    "a later round": (job(), {"round": 4}, "stale"),
    "another exchange": (job(), {"exchange": 1}, "stale"),
    "another packing": (job(), {"packing": "float16"}, "malformed"),
    "more parameters": (job(), {"n_parameters": 11}, "wrong-size"),
    "bytes that did not come": (job(), {"update_bytes": 41}, "wrong-size"),
    "no count": (job(strategy=SAMPLES), {"n_samples": None}, "malformed"),
    "a count of zero": (job(strategy=SAMPLES), {"n_samples": 0}, "malformed"),
    "a count beyond what may train": (job(strategy=SAMPLES), {"n_samples": 101}, "malformed"),
    "no head": (job(EXAMPLE), {"ledger_head": None}, "malformed"),
    "an empty head": (job(EXAMPLE), {"ledger_head": ""}, "malformed"),
    "an endless head": (job(EXAMPLE), {"ledger_head": "a" * 65}, "malformed"),
    "no length": (job(EXAMPLE), {"ledger_length": None}, "malformed"),
    "no entries": (job(EXAMPLE), {"ledger_length": 0}, "malformed"),
    "more entries than can be": (job(EXAMPLE), {"ledger_length": 2**31}, "malformed"),
    "no epsilon": (job(EXAMPLE), {"epsilon": None}, "malformed"),
    "no delta": (job(EXAMPLE), {"delta": None}, "malformed"),
    "epsilon over the job's": (job(EXAMPLE), {"epsilon": 2.01}, "over-budget"),
    "negative epsilon": (job(EXAMPLE), {"epsilon": -0.1}, "over-budget"),
    "epsilon that is no number": (job(EXAMPLE), {"epsilon": float("nan")}, "over-budget"),
    "delta over the job's": (job(EXAMPLE), {"delta": 1e-4}, "over-budget"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_contradicting_header_is_refused_with_its_reason(case: str) -> None:
    asked, fields, reason = REFUSED[case]
    with pytest.raises(UpdateRejectedError) as refused:
        check(asked, header(**fields))
    assert refused.value.reason == reason


def test_an_update_beyond_the_bound_is_over_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hedgerow.shared.limits.MAX_UPDATE_BYTES", 100)
    with pytest.raises(UpdateRejectedError) as refused:
        check(job(), header(update_bytes=101), size=101)
    assert refused.value.reason == "over-size"


def test_epsilon_and_delta_at_their_bounds_pass() -> None:
    assert check(job(EXAMPLE), msgspec.structs.replace(header(), epsilon=2.0, delta=1e-5)).weight == 1.0
