"""Bad payloads are kept for a person: bounded in number and size, with their reason."""

from __future__ import annotations

import sqlite3

from hedgerow.edge_agent.telemetry.quarantine import MAX_ENTRIES, MAX_KEPT_BYTES, Quarantine
from hedgerow.edge_agent.telemetry.reading import Refusal


def disk() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    Quarantine.prepare(connection)
    return connection


def test_an_entry_keeps_reason_topic_size_and_the_first_bytes() -> None:
    connection, quarantine = disk(), Quarantine()

    assert quarantine.take("s/x", b"z" * 5000, [Refusal("malformed", "byte 0")], 7)
    quarantine.write(connection)

    (entry,) = Quarantine.recent(connection)
    assert (entry.at_us, entry.topic, entry.reason, entry.detail, entry.size) == (
        7,
        "s/x",
        "malformed",
        "byte 0",
        5000,
    )
    assert entry.payload == b"z" * MAX_KEPT_BYTES


def test_faults_of_order_are_counted_without_keeping_the_payload() -> None:
    connection, quarantine = disk(), Quarantine()

    assert not quarantine.take("s/x", b"1", [Refusal("duplicate"), Refusal("missing")], 7)
    quarantine.write(connection)

    assert Quarantine.recent(connection) == []
    assert quarantine.counts == {"duplicate": 1, "missing": 1}


def test_the_number_of_entries_is_bounded_and_the_newest_stay() -> None:
    connection, quarantine = disk(), Quarantine()
    for round_ in range(5):
        for n in range(MAX_ENTRIES):
            quarantine.take("s", f"{round_}.{n}".encode(), [Refusal("malformed")], n)
        quarantine.write(connection)
        quarantine.written()

    assert connection.execute("SELECT count(*) FROM quarantine").fetchone()[0] == MAX_ENTRIES
    assert Quarantine.recent(connection, 1)[0].payload == f"4.{MAX_ENTRIES - 1}".encode()
    assert quarantine.counts["malformed"] == 5 * MAX_ENTRIES


def test_memory_stays_bounded_while_nothing_can_be_written() -> None:
    connection, quarantine = disk(), Quarantine()
    for n in range(10 * MAX_ENTRIES):
        quarantine.take("s", str(n).encode(), [Refusal("malformed")], n)

    quarantine.write(connection)

    assert len(Quarantine.recent(connection, 10_000)) == MAX_ENTRIES
