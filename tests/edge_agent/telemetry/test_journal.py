"""The journal's own promises: what is remembered, in which order, and how much of it."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.telemetry import T0_US, profile

from hedgerow.edge_agent.telemetry import journal as journal_module
from hedgerow.edge_agent.telemetry.journal import MAX_DELIVERIES, Journal
from hedgerow.edge_agent.telemetry.reading import Row
from hedgerow.edge_agent.telemetry.stream import Fed, RowStream
from hedgerow.shared.profile import WindowSpec


def disk() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def restored(connection: sqlite3.Connection, identity: str = "p") -> Journal:
    made = Journal(identity)
    made.prepare(connection)
    made.restore(connection, RowStream(profile()))
    return made


def commit(journal: Journal, connection: sqlite3.Connection) -> None:
    journal.write(connection)
    journal.written()


def row(second: float, value: float = 1.0) -> Row:
    return Row(T0_US + round(second * 1e6), ((0, value), (1, -value)))


def test_a_message_is_known_again_by_packet_topic_and_bytes() -> None:
    journal = restored(disk())
    journal.delivered(7, "s/x", b"body")

    assert journal.redelivered(7, "s/x", b"body")
    assert not journal.redelivered(8, "s/x", b"body")
    assert not journal.redelivered(7, "s/y", b"body")
    assert not journal.redelivered(7, "s/x", b"bodY")
    assert not journal.redelivered(7, "s/xb", b"ody"), "topic and payload are held apart"


def test_a_packet_id_used_again_stands_for_its_latest_message() -> None:
    journal = restored(disk())
    journal.delivered(7, "s", b"first")
    journal.delivered(7, "s", b"second")

    assert not journal.redelivered(7, "s", b"first")
    assert journal.redelivered(7, "s", b"second")


def test_what_was_delivered_is_known_after_a_restart_if_it_was_committed() -> None:
    connection = disk()
    journal = restored(connection)
    journal.delivered(1, "s", b"kept")
    commit(journal, connection)
    journal.delivered(2, "s", b"lost")

    again = restored(connection)

    assert again.redelivered(1, "s", b"kept")
    assert not again.redelivered(2, "s", b"lost")


def test_the_latest_messages_are_the_ones_remembered_also_after_a_restart() -> None:
    connection = disk()
    journal = restored(connection)
    journal.delivered(1, "s", b"early")
    for packet in range(2, MAX_DELIVERIES):
        journal.delivered(packet, "s", b"x")
    journal.delivered(1, "s", b"late")  # the broker took the number up again
    commit(journal, connection)

    again = restored(connection)
    for packet in range(1000, 1003):
        again.delivered(packet, "s", b"y")

    assert journal.redelivered(1, "s", b"late")
    assert again.redelivered(1, "s", b"late"), "the latest of the old ones is not the first to go"
    assert not again.redelivered(2, "s", b"x")


@settings(max_examples=40, deadline=None)
@given(
    packets=st.lists(st.integers(1, 12), max_size=60),
    restarts=st.sets(st.integers(0, 59)),
    bound=st.integers(2, 8),
)
def test_the_memory_is_that_of_the_last_distinct_packets(
    packets: list[int], restarts: set[int], bound: int
) -> None:
    whole = journal_module.MAX_DELIVERIES
    journal_module.MAX_DELIVERIES = bound  # type: ignore[misc]
    try:
        connection = disk()
        journal = restored(connection)
        for n, packet in enumerate(packets):
            journal.delivered(packet, "s", bytes([n]))
            commit(journal, connection)
            if n in restarts:
                journal = restored(connection)
        latest = {packet: n for n, packet in enumerate(packets)}
        # on disk are the last ``bound`` messages: these at least are known, and nothing that was never sent
        for packet, n in latest.items():
            if n >= len(packets) - bound:
                assert journal.redelivered(packet, "s", bytes([n]))
            assert not journal.redelivered(packet, "s", b"never")
        assert connection.execute("SELECT count(*) FROM deliveries").fetchone()[0] <= bound
    finally:
        journal_module.MAX_DELIVERIES = whole  # type: ignore[misc]


def test_memory_and_disk_stay_bounded_while_a_broker_floods() -> None:
    connection = disk()
    journal = restored(connection)
    for packet in range(3 * MAX_DELIVERIES):
        journal.delivered(packet, "s", b"x")
    commit(journal, connection)

    assert connection.execute("SELECT count(*), min(packet) FROM deliveries").fetchone() == (
        MAX_DELIVERIES,
        2 * MAX_DELIVERIES,
    )


def test_readings_wait_in_bounded_memory_while_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MAX_READINGS", 50)
    connection = disk()
    journal, stream = restored(connection), RowStream(profile())
    for n in range(400):
        # many readings of one instant: none is older than what a window rests on
        journal.follow(Fed((), (), (row(0, float(n)),)), stream)
    commit(journal, connection)

    kept = connection.execute("SELECT count(*), min(seq), max(seq) FROM readings").fetchone()
    assert kept == (50, 351, 400)


def test_a_clock_set_anew_leaves_nothing_of_before() -> None:
    connection = disk()
    device = profile(window=WindowSpec(length=4))
    journal, stream = restored(connection), RowStream(device)
    for second in (0, 1, 2, 90_000, 90_001, 90_002):
        fed = stream.feed((row(second),))
        journal.follow(fed, stream)
        commit(journal, connection)

    times = [us for (us,) in connection.execute("SELECT time_us FROM readings ORDER BY seq")]
    assert times == [row(second).time_us for second in (90_000, 90_001, 90_002)]


def test_after_a_damaged_file_all_that_matters_is_written_again() -> None:
    device, first, second = profile(window=WindowSpec(length=4)), disk(), disk()
    journal, stream = restored(first), RowStream(device)
    for at in (0, 1, 2, 500):
        journal.follow(stream.feed((row(at),)), stream)
        commit(journal, first)

    journal.prepare(second)
    journal.start_anew()
    commit(journal, second)
    again, fresh = Journal("p"), RowStream(device)
    again.prepare(second)

    assert again.restore(second, fresh) == 3
    assert fresh.clock_us == stream.clock_us
    assert fresh.held_back == stream.held_back
    assert len(fresh.held_back.streak) == 1
    assert len(fresh.feed((row(3),)).windows) == len(stream.feed((row(3),)).windows) == 1


def test_the_same_profile_finds_its_journal_and_another_an_empty_one() -> None:
    connection = disk()
    journal, stream = restored(connection, "one"), RowStream(profile())
    journal.follow(stream.feed((row(0),)), stream)
    journal.delivered(1, "s", b"x")
    commit(journal, connection)

    assert restored(connection, "one").redelivered(1, "s", b"x")
    other = restored(connection, "two")
    assert not other.redelivered(1, "s", b"x")
    counts = [
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("readings", "held_back", "deliveries")
    ]
    assert counts == [0, 0, 0]
    assert not restored(connection, "one").redelivered(1, "s", b"x"), "what was emptied stays empty"


def test_numbering_goes_on_after_a_restart() -> None:
    connection = disk()
    for start in (0, 1, 2):
        journal, stream = Journal("p"), RowStream(profile())
        journal.prepare(connection)
        assert journal.restore(connection, stream) == start
        journal.follow(stream.feed((row(start),)), stream)
        commit(journal, connection)

    assert [seq for (seq,) in connection.execute("SELECT seq FROM readings ORDER BY seq")] == [1, 2, 3]
