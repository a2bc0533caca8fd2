"""The ε that a device states: from its ledger alone, the same after any restart, never less than was charged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.edge_agent.trainer.spent import SpentSoFar, charge_of
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.entries import JobOpened, SampleRange
from hedgerow.shared.privacy.events import DpSgdSteps

DELTA = 1e-5


def opened(job_id: str, samples: SampleRange, *, rounds: int = 5) -> JobOpened:
    return JobOpened(
        job_id=job_id,
        request="r",
        samples=samples,
        n=100,
        epsilon=8.0,
        delta=DELTA,
        clip_norm_l2=1.0,
        sampling_rate=0.2,
        noise_multiplier=1.5,
        steps_per_round=5,
        rounds=rounds,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[DeviceLedger]:
    made = DeviceLedger(tmp_path / "ledger.db")
    yield made
    made.close()


def begin(ledger: DeviceLedger, job_id: str, after: int, up_to: int) -> None:
    plan = opened(job_id, SampleRange("window", after, up_to))
    ledger.open_job(lambda _: plan)


def stated(ledger: DeviceLedger, job_id: str, round: int) -> float:
    """As a process says it that was started just now."""
    return SpentSoFar().after(ledger.state().jobs[job_id], (round, 0))


def test_rounds_count_in_the_order_they_were_charged_whatever_their_numbers(ledger: DeviceLedger) -> None:
    begin(ledger, "job", 0, 100)
    for number in (2, 7, 9):
        ledger.reserve("job", number, 0, "q")

    curve = [stated(ledger, "job", number) for number in (2, 7, 9)]

    exact = [epsilon([DpSgdSteps(0.2, 1.5, 5 * k)], DELTA) for k in (1, 2, 3)]
    assert all(0 <= said - true < 0.01 * true for said, true in zip(curve, exact, strict=True))
    # Sent again later, each says what it said.
    assert stated(ledger, "job", 2) == curve[0]


def test_earlier_jobs_on_the_same_samples_count_and_others_do_not(ledger: DeviceLedger) -> None:
    begin(ledger, "first", 0, 100)
    begin(ledger, "same", 50, 150)
    begin(ledger, "apart", 150, 250)
    for job in ("same", "apart"):
        ledger.reserve(job, 1, 0, "q")

    alone = stated(ledger, "apart", 1)
    both = stated(ledger, "same", 1)

    assert charge_of(ledger.state().jobs["apart"]).earlier == ()
    # The first job has charged nothing yet; what it may still charge counts.
    assert charge_of(ledger.state().jobs["same"]).earlier == (DpSgdSteps(0.2, 1.5, 25),)
    assert both >= epsilon([DpSgdSteps(0.2, 1.5, 30)], DELTA) > 1.5 * alone


def test_it_never_falls_when_an_earlier_job_ends_early_or_a_later_one_begins(ledger: DeviceLedger) -> None:
    begin(ledger, "first", 0, 100)
    begin(ledger, "job", 0, 100)
    ledger.reserve("job", 1, 0, "q")
    before = stated(ledger, "job", 1)

    ledger.close_job("first")
    begin(ledger, "later", 0, 100)
    ledger.reserve("later", 1, 0, "q")

    assert stated(ledger, "job", 1) == before
    ledger.reserve("job", 2, 0, "q")
    assert stated(ledger, "job", 2) > before
    # For the later job, the one that ended early counts with what it had charged: nothing.
    assert charge_of(ledger.state().jobs["later"]).earlier == (DpSgdSteps(0.2, 1.5, 25),)


def test_a_warm_process_and_a_new_one_say_the_same(ledger: DeviceLedger, tmp_path: Path) -> None:
    begin(ledger, "job", 0, 100)
    warm = SpentSoFar()
    said = []
    for number in range(1, 6):
        ledger.reserve("job", number, 0, "q")
        said.append(warm.after(ledger.state().jobs["job"], (number, 0)))

    other = DeviceLedger(tmp_path / "ledger.db")
    assert [stated(other, "job", number) for number in range(1, 6)] == said
    assert said == sorted(said)
    other.close()


def test_an_exchange_that_was_never_charged_has_no_epsilon(ledger: DeviceLedger) -> None:
    begin(ledger, "job", 0, 100)

    with pytest.raises(ValueError, match="is not in list"):
        stated(ledger, "job", 1)
