"""The jobs' records over a real database: states, order, bounds, what each privacy mode is shown to have spent."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from hedgerow.server.jobs.records import UNFINISHED, State
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.jobs.tables import JobRow
from hedgerow.server.ledger.tables import LedgerHeadRow, PrivacyChargeRow
from hedgerow.server.rounds.tables import ContributionRow, RoundRow
from hedgerow.server.store.database import Base, Database, utc_now
from hedgerow.shared.job import CohortSpec, Job, PrivacySpec

STATES: tuple[State, ...] = get_args(State)
NONE = PrivacySpec("none")
EXAMPLE = PrivacySpec("example", 8.0, 1e-5)
CENTRAL = PrivacySpec("central-poisson", 2.0, 1e-4)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'h.db'}")
    Base.metadata.create_all(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def add(store: JobStore, job_id: str = "j-1", privacy: PrivacySpec = NONE, **changes: Any) -> Job:
    job = Job("digits", "digits-cnn", privacy, **changes)
    store.add(job_id, job, "h" * 64, 10, "ann")
    return job


def write(database: Database, *rows: Base) -> None:
    with database.transaction() as session:
        session.add_all(rows)


def head(job_id: str, device: str, epsilon: float, delta: float = 1e-5) -> LedgerHeadRow:
    return LedgerHeadRow(
        job_id=job_id, device=device, round=1, head="0" * 64, length=1, epsilon=epsilon, delta=delta, updated_at=utc_now()
    )  # fmt: skip


def charge(job_id: str, number: int, epsilon: float | None) -> PrivacyChargeRow:
    return PrivacyChargeRow(
        job_id=job_id, round=number, state="charged", epsilon=epsilon, reserved_at=utc_now()
    )


def round_row(job_id: str, number: int, state: str = "committed", **more: Any) -> RoundRow:
    values: dict[str, Any] = {"cohort": "[]", "planned_at": utc_now(), "committed_at": utc_now(), **more}
    return RoundRow(job_id=job_id, round=number, state=state, **values)


def did(
    job_id: str, number: int, device: str, outcome: str = "counted", exchange: int = 0
) -> ContributionRow:
    return ContributionRow(job_id=job_id, round=number, exchange=exchange, device=device, outcome=outcome)


def test_a_job_that_was_added_is_read_back_whole(store: JobStore) -> None:
    job = add(
        store,
        privacy=EXAMPLE,
        parameters={"width": 3, "deep": {"a": [1, 2.5, "x", None, True]}},
        cohort=CohortSpec("fixed", 3, quorum=2),
        seed=2**63 - 1,
    )
    record = store.get("j-1")

    assert record is not None
    assert record.job == job
    assert (record.state, record.reason, record.rounds_done, record.submitted_by) == ("queued", "", 0, "ann")
    assert (record.recipe_hash, record.n_parameters, record.model_sha256) == ("h" * 64, 10, "")
    assert (record.started_at, record.finished_at, record.epsilon, record.result) == (None, None, None, {})
    assert store.get("j-2") is None


def test_one_id_is_one_job(store: JobStore) -> None:
    add(store)

    with pytest.raises(IntegrityError):
        add(store)
    assert len(store.recent(10)) == 1


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, STATES)))
def test_only_an_unfinished_job_moves(store: JobStore, before: State, after: State) -> None:
    add(store)
    assert store.move("j-1", before)

    moved = store.move("j-1", after, reason="why")

    assert moved is (before in UNFINISHED)
    record = store.get("j-1")
    assert record is not None
    assert (record.state, record.reason) == ((after, "why") if moved else (before, ""))
    assert (record.finished_at is not None) is (record.state not in UNFINISHED)


@pytest.mark.parametrize("state", STATES)
def test_a_move_asks_for_the_states_that_it_may_leave(store: JobStore, state: State) -> None:
    add(store)
    store.move("j-1", state)

    for only in STATES:
        if only != state:
            assert not store.move("j-1", "failed", among=[only])
    assert store.move("j-1", state, among=[state])
    assert not store.move("j-1", "failed", among=[])
    assert not store.move("nothing", "failed")


def test_the_first_start_is_the_one_that_is_kept(store: JobStore) -> None:
    add(store)
    store.move("j-1", "running")
    first = store.get("j-1")
    store.move("j-1", "queued")
    store.move("j-1", "running")
    again = store.get("j-1")

    assert first is not None
    assert again is not None
    assert first.started_at is not None
    assert again.started_at == first.started_at


def test_a_reason_is_cut_and_a_result_is_kept_until_another_comes(store: JobStore) -> None:
    add(store)
    store.move("j-1", "packaging", reason="ä" * 5000, result={"model": "m", "version": 3})
    store.move("j-1", "delivered")
    record = store.get("j-1")

    assert record is not None
    assert (record.reason, record.result) == ("", {"model": "m", "version": 3})
    store.move("j-1", "failed", among=["delivered"], reason="ä" * 5000)
    record = store.get("j-1")
    assert record is not None
    assert record.reason == "ä" * 2000


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(STATES), max_size=12), st.integers(1, 15))
def test_lists_are_in_order_bounded_and_of_the_right_states(states: list[State], limit: int) -> None:
    database = Database("sqlite://")
    Base.metadata.create_all(database.engine)
    store = JobStore(database)
    for n, state in enumerate(states):
        add(store, f"j-{n}")
        store.move(f"j-{n}", state)

    newest = [f"j-{n}" for n in reversed(range(len(states)))]
    assert [r.job_id for r in store.recent(limit)] == newest[:limit]
    assert [r.job_id for r in store.unfinished()] == [
        f"j-{n}" for n, s in enumerate(states) if s in UNFINISHED
    ]
    assert [r.number for r in store.recent(99)] == sorted((r.number for r in store.recent(99)), reverse=True)
    database.close()


def test_what_devices_claim_is_the_largest_of_them_and_of_this_job_alone(
    store: JobStore, database: Database
) -> None:
    add(store, "j-1", EXAMPLE)
    add(store, "j-2", EXAMPLE)
    add(store, "j-3", EXAMPLE)
    write(database, head("j-1", "a", 1.5), head("j-1", "b", 4.25, 2e-5), head("j-2", "a", 7.0))

    shown = {r.job_id: (r.epsilon, r.delta) for r in store.recent(10)}
    assert shown == {"j-1": (4.25, 2e-5), "j-2": (7.0, 1e-5), "j-3": (None, None)}
    one = store.get("j-1")
    assert one is not None
    assert one.epsilon == 4.25


def test_what_a_population_was_charged_is_the_last_charge_at_the_job_s_own_delta(
    store: JobStore, database: Database
) -> None:
    add(store, "j-1", CENTRAL)
    add(store, "j-2", CENTRAL)
    write(database, charge("j-1", 1, 0.5), charge("j-1", 2, 0.75), charge("j-1", 3, None))

    shown = {r.job_id: (r.epsilon, r.delta) for r in store.recent(10)}
    assert shown == {"j-1": (0.75, 1e-4), "j-2": (None, None)}


def test_rounds_are_the_committed_ones_in_order_of_one_job(store: JobStore, database: Database) -> None:
    add(store, "j-1")
    write(
        database,
        round_row("j-1", 2, drawn=3, reasons={"stale": 1}, scores={"accuracy": 0.5}, metrics={"loss": 1.5}),
        round_row("j-1", 1, drawn=2),
        round_row("j-1", 3, "planned"),
        round_row("j-2", 1),
    )
    rounds = store.rounds("j-1")

    assert [(r.round, r.drawn) for r in rounds] == [(1, 2), (2, 3)]
    assert (rounds[1].reasons, rounds[1].scores, rounds[1].metrics) == (
        {"stale": 1},
        {"accuracy": 0.5},
        {"loss": 1.5},
    )
    assert (rounds[0].attempt, rounds[0].below_quorum, rounds[0].epsilon) == (1, False, None)
    assert store.rounds("nothing") == []


def test_a_round_s_record_has_no_field_that_could_tell_who_was_drawn(
    store: JobStore, database: Database
) -> None:
    write(database, round_row("j-1", 1, cohort=json.dumps(["secret-device"])))
    write(database, did("j-1", 1, "secret-device"))

    assert "secret-device" not in repr(store.rounds("j-1"))


def test_who_was_drawn_is_read_with_what_each_did(store: JobStore, database: Database) -> None:
    write(
        database,
        round_row("j-1", 1, cohort=json.dumps(["b", "a"])),
        did("j-1", 1, "b", "rejected", exchange=1),
        did("j-1", 1, "b"),
        did("j-1", 1, "a", "missing"),
        did("j-1", 2, "c"),
    )
    found = store.cohort("j-1", 1)

    assert found is not None
    assert found.cohort == ("b", "a")
    assert found.outcomes == ((0, "a", "missing", ""), (0, "b", "counted", ""), (1, "b", "rejected", ""))
    assert store.cohort("j-1", 2) is None
    assert store.cohort("j-2", 1) is None


def test_contributors_are_counted_once_each_and_only_where_their_update_counts(
    store: JobStore, database: Database
) -> None:
    write(
        database,
        *(did("j-1", number, device) for number in (1, 2) for device in ("a", "b")),
        did("j-1", 1, "c", "rejected"),
        did("j-1", 1, "d", "missing"),
        did("j-2", 1, "e"),
    )

    assert store.contributors("j-1") == 2
    assert store.contributors("j-3") == 0


def test_a_list_of_jobs_does_not_read_their_models(store: JobStore, database: Database) -> None:
    add(store)
    with database.transaction() as session:
        row = session.get(JobRow, 1)
        assert row is not None
        row.model_inline = b"x" * 1000
    read: list[str] = []

    from sqlalchemy import event

    event.listen(database.engine, "before_cursor_execute", lambda *given: read.append(str(given[2])))
    assert len(store.recent(5)) == 1
    assert read
    assert not any("model_inline" in statement for statement in read)
