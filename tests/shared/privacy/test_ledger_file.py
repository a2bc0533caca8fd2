"""The ledger's format: its chain shows every alteration, its rules every contradiction, and its head tells nothing."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.shared.errors import ConfigError, IntegrityError, StorageError
from hedgerow.shared.privacy.entries import (
    GENESIS,
    Body,
    Entry,
    JobClosed,
    JobOpened,
    Released,
    Reserved,
    SampleRange,
    Unprotected,
    check_entry,
    new_entry,
)
from hedgerow.shared.privacy.events import DpSgdSteps, UnprotectedRelease
from hedgerow.shared.privacy.ledger_file import SCHEMA, Chain, check_ancestor, verify
from hedgerow.shared.privacy.state import LedgerState
from hedgerow.shared.privacy.statement import lifetime_epsilon, recompute, recompute_job


def opened(job_id: str = "job-1", *, after: int = 0, up_to: int = 300, spec: str = "window") -> JobOpened:
    return JobOpened(
        job_id=job_id,
        request="r",
        samples=SampleRange(spec, after, up_to),
        n=300,
        epsilon=8.0,
        delta=1e-5,
        clip_norm_l2=1.0,
        sampling_rate=0.1,
        noise_multiplier=1.5,
        steps_per_round=10,
        rounds=3,
    )


def bodies() -> list[Body]:
    return [
        opened(),
        Reserved("job-1", 1, 0, 10),
        Released("job-1", 1, 0, "q", "aa"),
        Reserved("job-1", 2, 0, 10),
        JobClosed("job-1"),
    ]


def chain_of(given_bodies: list[Body]) -> list[Entry]:
    entries: list[Entry] = []
    for body in given_bodies:
        previous = entries[-1].hash if entries else GENESIS
        entries.append(new_entry(len(entries) + 1, previous, body, 5))
    return entries


def write(path: Path, entries: list[Entry]) -> Path:
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA)
        db.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            [(e.sequence, e.previous, e.salt, e.at_us, e.raw, e.hash) for e in entries],
        )
    db.close()
    return path


def state_of(given_bodies: list[Body]) -> LedgerState:
    state = LedgerState()
    for n, body in enumerate(given_bodies):
        state.apply(body, bytes([n]))
    return state


def test_a_written_chain_is_read_back_verified(tmp_path: Path) -> None:
    entries = chain_of(bodies())

    chain = verify(write(tmp_path / "ledger.db", entries))

    assert chain.head == entries[-1].hash
    assert chain.length == len(entries)
    assert chain.state.jobs["job-1"].steps == 20


def test_an_empty_ledger_is_sound(tmp_path: Path) -> None:
    chain = verify(write(tmp_path / "ledger.db", []))

    assert (chain.head, chain.length, chain.state.charged()) == (GENESIS, 0, ())


@pytest.mark.parametrize(
    "change",
    [
        "body = CAST(replace(CAST(body AS TEXT), '10', '11') AS BLOB)",
        "salt = zeroblob(32)",
        "salt = x'00'",
        "at_us = at_us + 1",
        "previous = zeroblob(32)",
        "hash = zeroblob(32)",
        "sequence = sequence + 100",
    ],
)
def test_any_altered_field_is_found_and_its_entry_named(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "ledger.db", chain_of(bodies()))
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER entries_stay")
        db.execute(f"UPDATE entries SET {change} WHERE sequence = 2")

    with pytest.raises(IntegrityError, match="entry 2"):
        verify(path)


def test_a_removed_entry_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "ledger.db", chain_of(bodies()))
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER entries_keep")
        db.execute("DELETE FROM entries WHERE sequence = 3")

    with pytest.raises(IntegrityError, match="entry 3"):
        verify(path)


def test_an_entry_rewritten_with_its_own_hash_breaks_the_next(tmp_path: Path) -> None:
    entries = chain_of(bodies())
    entries[1] = new_entry(2, entries[0].hash, Reserved("job-1", 9, 0, 10), 5)

    with pytest.raises(IntegrityError, match="entry 3"):
        verify(write(tmp_path / "ledger.db", entries))


def test_a_cut_off_end_is_shown_by_a_head_kept_elsewhere(tmp_path: Path) -> None:
    entries = chain_of(bodies())
    path = write(tmp_path / "ledger.db", entries[:3])

    verify(path)
    check_ancestor(path, entries[1].hash.hex())
    with pytest.raises(IntegrityError, match="removed"):
        check_ancestor(path, entries[4].hash.hex())


def test_sql_cannot_change_or_delete_entries(tmp_path: Path) -> None:
    path = write(tmp_path / "ledger.db", chain_of(bodies()))

    with sqlite3.connect(path) as db:
        for statement in ("DELETE FROM entries", "UPDATE entries SET at_us = 0"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)


def test_a_missing_file_and_one_that_is_no_ledger_are_told_apart_from_an_altered_one(tmp_path: Path) -> None:
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"not a database at all" * 100)

    with pytest.raises(StorageError, match="no privacy ledger"):
        verify(tmp_path / "absent.db")
    with pytest.raises(StorageError, match="not a readable"):
        verify(junk)


def test_an_entry_that_says_nothing_known_is_refused() -> None:
    raw = b'{"type":"gift","steps":-3}'
    entry = new_entry(1, GENESIS, opened(), 0)
    from hedgerow.shared.privacy.entries import entry_hash

    forged = msgspec.structs.replace(
        entry, raw=raw, hash=entry_hash(1, GENESIS, entry.salt, entry.at_us, raw)
    )

    with pytest.raises(IntegrityError, match="entry 1"):
        Chain().extend(forged)


def test_a_field_of_another_type_is_refused() -> None:
    entry = new_entry(1, GENESIS, opened(), 0)

    for field in ("salt", "raw", "hash", "previous"):
        with pytest.raises(IntegrityError):
            check_entry(msgspec.structs.replace(entry, **{field: "text"}), 1, GENESIS)


def test_an_entry_beyond_the_size_bound_is_refused() -> None:
    huge = new_entry(1, GENESIS, JobClosed("j" * 20_000), 0)

    with pytest.raises(IntegrityError):
        check_entry(huge, 1, GENESIS)


def test_the_same_entry_has_another_hash_each_time() -> None:
    first, second = (new_entry(1, GENESIS, opened(), 5) for _ in range(2))

    assert first.raw == second.raw
    assert first.hash != second.hash


def test_a_head_cannot_be_guessed_from_the_few_numbers_in_its_entry() -> None:
    entry = new_entry(1, GENESIS, opened(), 5)

    def guess(n: int) -> bytes:
        raw = msgspec.json.encode(msgspec.structs.replace(opened(), n=n))
        unsalted = (1).to_bytes(8, "big") + GENESIS + bytes(32) + (5).to_bytes(8, "big", signed=True)
        return hashlib.sha256(b"hedgerow-ledger-1\0" + unsalted + raw).digest()

    assert entry.hash not in {guess(n) for n in range(1, 1000)}
    assert len(entry.salt) == 32


def test_state_counts_what_was_reserved_not_what_was_released() -> None:
    state = state_of(bodies()[:4])

    account = state.jobs["job-1"]
    assert account.charged() == (DpSgdSteps(0.1, 1.5, 20),)
    assert list(account.released) == [(1, 0)]


def test_an_open_job_commits_its_whole_plan_and_a_closed_one_what_it_charged() -> None:
    state = state_of(bodies()[:4])
    samples = SampleRange("window", 0, 10)
    assert state.committed_on(samples) == (DpSgdSteps(0.1, 1.5, 30),)

    state.apply(JobClosed("job-1"), b"c")

    assert state.committed_on(samples) == (DpSgdSteps(0.1, 1.5, 20),)


def test_a_job_that_charged_nothing_and_closed_commits_nothing() -> None:
    state = state_of([opened(), JobClosed("job-1")])

    assert state.committed_on(SampleRange("window", 0, 10)) == ()


@pytest.mark.parametrize(
    ("samples", "apart"),
    [
        (SampleRange("window", 300, 400), True),
        (SampleRange("window", 299, 400), False),
        (SampleRange("window", 0, 10), False),
        (SampleRange("digit", 0, 300), True),
    ],
)
def test_a_later_job_shares_the_cost_unless_its_samples_came_after(samples: SampleRange, apart: bool) -> None:
    state = state_of([opened(after=100, up_to=300)])

    assert (state.committed_on(samples) == ()) is apart


def test_lower_ids_do_not_count_as_other_samples() -> None:
    """A store that was lost and filled again counts from one, with the same readings."""
    state = state_of([opened(after=500, up_to=800)])

    assert state.committed_on(SampleRange("window", 0, 300)) != ()


@pytest.mark.parametrize(
    ("sequence", "complaint"),
    [
        ([opened(), opened()], "opened twice"),
        (
            [Unprotected("a", SampleRange("w", 0, 1)), Unprotected("a", SampleRange("w", 0, 1))],
            "opened twice",
        ),
        ([opened(), Unprotected("job-1", SampleRange("w", 0, 1))], "opened twice"),
        ([Unprotected("job-1", SampleRange("w", 0, 1)), opened()], "opened twice"),
        ([Reserved("job-1", 1, 0, 10)], "never opened"),
        ([JobClosed("job-1")], "never opened"),
        ([opened(), Reserved("job-1", 1, 0, 10), Reserved("job-1", 1, 0, 10)], "twice"),
        ([opened(), Reserved("job-1", 1, 0, 11)], "more than it planned"),
        ([opened(), *(Reserved("job-1", r, 0, 10) for r in range(4))], "more than it planned"),
        ([opened(), Released("job-1", 1, 0, "q", "a")], "without reserving"),
        (
            [opened(), Reserved("job-1", 1, 0, 10), *[Released("job-1", 1, 0, "q", "a")] * 2],
            "releases exchange",
        ),
        ([opened(), JobClosed("job-1"), Reserved("job-1", 1, 0, 10)], "after it was closed"),
    ],
)
def test_a_ledger_that_breaks_a_rule_is_refused(sequence: list[Body], complaint: str) -> None:
    with pytest.raises(IntegrityError, match=complaint):
        state_of(sequence)


def test_a_refused_entry_changes_nothing() -> None:
    state = state_of(bodies()[:4])

    for bad in (Reserved("job-1", 1, 0, 10), Reserved("job-1", 3, 0, 9), Released("job-1", 1, 0, "q", "a")):
        with pytest.raises(IntegrityError):
            state.apply(bad, b"x")

    assert state.jobs["job-1"].steps == 20
    assert list(state.jobs["job-1"].released) == [(1, 0)]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), max_size=12))
@settings(max_examples=200, deadline=None)
def test_whatever_is_tried_the_charge_never_exceeds_the_plan(tries: list[tuple[int, int]]) -> None:
    state = state_of([opened()])
    accepted = 0
    for round_number, exchange in tries:
        try:
            state.apply(Reserved("job-1", round_number, exchange, 10), b"x")
            accepted += 1
        except IntegrityError:
            continue

    assert state.jobs["job-1"].steps == 10 * accepted <= 30
    assert accepted == min(3, len(set(tries)))


def test_statement_is_recomputed_from_the_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "ledger.db", chain_of(bodies()))

    (found,) = recompute(path)

    assert recompute_job(path, "job-1") == found
    assert (found.job_id, found.n, found.steps, found.planned_steps) == ("job-1", 300, 20, 30)
    assert (found.noise_multiplier, found.sampling_rate, found.delta) == (1.5, 0.1, 1e-5)
    assert 0 < found.epsilon_pld < found.epsilon_rdp < 8
    assert found.epsilon_samples == pytest.approx(found.epsilon_pld)
    assert found.within_budget
    assert found.rounds_released == 1


def test_a_job_that_does_not_exist_has_no_statement(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing-here"):
        recompute_job(write(tmp_path / "ledger.db", chain_of(bodies())), "nothing-here")


def second_job(samples: dict[str, int | str]) -> list[Body]:
    return [
        *bodies(),
        msgspec.structs.replace(opened("job-2"), samples=SampleRange(**samples)),  # type: ignore[arg-type]
        Reserved("job-2", 1, 0, 10),
    ]


def test_jobs_on_the_same_samples_are_composed_in_both_statements(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ledger.db", chain_of(second_job({"spec": "window", "after_id": 0, "up_to_id": 400}))
    )

    first, second = recompute(path)

    assert first.epsilon_samples == pytest.approx(second.epsilon_samples)
    assert first.epsilon_samples > max(first.epsilon_pld, second.epsilon_pld)
    assert lifetime_epsilon(path, 1e-5) == pytest.approx(first.epsilon_samples)


def test_jobs_on_other_samples_are_composed_in_the_lifetime_only(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ledger.db", chain_of(second_job({"spec": "digit", "after_id": 0, "up_to_id": 400}))
    )

    first, second = recompute(path)

    assert first.epsilon_samples == pytest.approx(first.epsilon_pld)
    assert second.epsilon_samples == pytest.approx(second.epsilon_pld)
    assert lifetime_epsilon(path, 1e-5) > max(first.epsilon_pld, second.epsilon_pld)


def test_a_job_without_privacy_makes_its_samples_and_the_lifetime_infinite(tmp_path: Path) -> None:
    unprotected = Unprotected("open-job", SampleRange("window", 0, 300))
    path = write(tmp_path / "ledger.db", chain_of([unprotected, *bodies()]))

    (found,) = recompute(path)

    assert found.epsilon_samples == float("inf")
    assert found.epsilon_pld < 8
    assert lifetime_epsilon(path, 1e-5) == float("inf")
    assert UnprotectedRelease("open-job") in verify(path).state.charged()


@pytest.mark.parametrize(
    "break_budget",
    [
        lambda plan: msgspec.structs.replace(plan, epsilon=0.5),
        lambda plan: msgspec.structs.replace(plan, delta=1e-3),
    ],
)
def test_a_statement_says_when_the_budget_or_delta_was_not_kept(
    tmp_path: Path, break_budget: Callable[[JobOpened], JobOpened]
) -> None:
    plan = break_budget(opened())
    path = write(tmp_path / "ledger.db", chain_of([plan, *bodies()[1:]]))

    assert not recompute(path)[0].within_budget
