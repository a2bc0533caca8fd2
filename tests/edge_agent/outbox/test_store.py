from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.messages import Alarm, ChannelShare, Event, EventAck, GapRecord, Notice, Severity


def note(n: int) -> Notice:
    return Notice("n", str(n))


def sequences(outbox: Outbox) -> list[int]:
    return [event.sequence for event in outbox.batch().events]


def test_event_comes_back_as_it_was_put(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", now_us=lambda: 42)
    body = Alarm(9.0, 3.0, 1, 2, (ChannelShare("flow", 0.8),), "m", "b" * 64, "litert", "int8", "champion")
    put = outbox.put("critical", body)

    assert put == Event(1, 42, "critical", body)
    assert outbox.batch().events == (put,)
    assert outbox.pending() == 1


def test_events_stay_until_acknowledged_and_numbers_are_never_used_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    for n in range(5):
        outbox.put("info", note(n))
    assert outbox.acknowledged(EventAck(outbox.epoch, 3)) == 3
    assert sequences(outbox) == [4, 5]
    assert outbox.acknowledged(EventAck(outbox.epoch, 5)) == 2
    outbox.close()

    again = Outbox(tmp_path / "o.db")
    assert again.put("info", note(6)).sequence == 6


def test_ack_of_another_epoch_deletes_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.put("info", note(1))

    assert outbox.acknowledged(EventAck("another", 99)) == 0
    assert sequences(outbox) == [1]


def test_epoch_stays_with_the_file_and_differs_between_files(tmp_path: Path) -> None:
    first, second = Outbox(tmp_path / "a.db"), Outbox(tmp_path / "b.db")
    first.close()

    assert Outbox(tmp_path / "a.db").epoch == first.epoch != second.epoch


def test_batches_are_bounded_in_number_and_bytes_and_never_empty_while_something_waits(
    tmp_path: Path,
) -> None:
    outbox = Outbox(tmp_path / "o.db")
    for _ in range(300):
        outbox.put("info", Notice("n", "x" * 900))

    assert len(outbox.batch().events) < limits.MAX_EVENTS_PER_BATCH
    assert len(msgspec.json.encode(outbox.batch())) <= 130 * limits.KIB
    assert len(outbox.batch(max_bytes=1).events) == 1


def test_put_wakes_the_sender_after_the_commit(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    seen: list[int] = []
    outbox.on_put = lambda: seen.append(outbox.pending())
    outbox.put("info", note(1))

    assert seen == [1]


def test_too_large_an_event_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    shares = tuple(ChannelShare("c" * 128, 0.5) for _ in range(200))
    with pytest.raises(ContentError, match="larger"):
        outbox.put("critical", Alarm(1.0, 1.0, 1, 2, shares, "m", "", "", "", ""))

    assert outbox.pending() == 0


def test_threads_get_numbers_without_holes(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    threads = [
        threading.Thread(target=lambda: [outbox.put("info", note(n)) for n in range(25)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sequences(outbox) == list(range(1, 101))


def test_full_outbox_drops_the_oldest_and_says_which(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", max_events=100)
    outbox.put("critical", note(0))
    for n in range(300):
        outbox.put("info", note(n))
    events = outbox.batch().events

    assert outbox.pending() <= 101
    assert events[0].severity == "critical" and events[0].sequence == 1
    gap = events[1].body
    assert isinstance(gap, GapRecord) and gap.first == 2 and gap.last == events[1].sequence
    assert [event.sequence for event in events[2:]] == list(range(gap.last + 1, 302))


severities: st.SearchStrategy[Severity] = st.sampled_from(["info", "warning", "critical"])


@given(
    st.lists(
        st.tuples(severities, st.integers(1, 900)) | st.integers(0, 300) | st.just("restart"), max_size=150
    ),
    st.integers(5, 30),
)
@settings(max_examples=25, deadline=None)
def test_the_sequence_is_whole_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[object], max_events: int
) -> None:
    path = tmp_path_factory.mktemp("outbox") / "o.db"
    outbox = Outbox(path, max_events=max_events, max_bytes=max_events * 400)
    acknowledged = last = 0
    for step in steps:
        if isinstance(step, tuple):
            last = outbox.put(step[0], Notice("n", "x" * step[1])).sequence
        elif isinstance(step, int):
            acknowledged = max(acknowledged, min(step, last))
            outbox.acknowledged(EventAck(outbox.epoch, acknowledged))
        else:
            outbox.close()
            outbox = Outbox(path, max_events=max_events, max_bytes=max_events * 400)

        expected = None
        for event in outbox.batch().events:
            first = event.body.first if isinstance(event.body, GapRecord) else event.sequence
            assert expected is None or first == expected
            assert expected is not None or first <= acknowledged + 1
            expected = event.sequence + 1
        assert expected in (None, last + 1)
    outbox.close()


def test_refused_event_leaves_a_gap_and_a_refused_gap_leaves_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    for n in range(3):
        outbox.put("info", note(n))
    outbox.put_aside(2, "refused")

    assert [type(event.body) for event in outbox.batch().events] == [Notice, GapRecord, Notice]
    assert outbox.batch().events[1].body == GapRecord(2, 2, "refused")
    outbox.put_aside(2, "refused")
    outbox.put_aside(99, "refused")
    assert sequences(outbox) == [1, 3]


def test_damaged_file_is_put_aside_told_of_and_a_new_epoch_begun(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    old = Outbox(path)
    old.put("info", note(1))
    old.close()
    path.write_bytes(b"this is no database " * 500)
    outbox = Outbox(path)

    (event,) = outbox.batch().events
    assert isinstance(event.body, Notice) and event.body.code == "outbox-damaged"
    assert outbox.epoch != old.epoch
    assert len(list(tmp_path.glob("o.db.damaged-*"))) == 1


def test_damaged_row_is_sent_as_a_gap_and_does_not_block_the_rest(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    for n in range(3):
        outbox.put("info", note(n))
    with sqlite3.connect(tmp_path / "o.db") as other:
        other.execute("UPDATE events SET body = x'00ff' WHERE sequence = 2")
    other.close()

    assert outbox.batch().events[1].body == GapRecord(2, 2, "damaged")
    assert sequences(outbox) == [1, 2, 3]


def test_full_disk_is_an_error_that_loses_nothing_committed_and_is_told_of_later(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.put("info", note(1))
    pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
    outbox._database.execute(f"PRAGMA max_page_count = {pages + 2}")
    lost = written = 0
    for _ in range(40):
        try:
            outbox.put("info", Notice("n", "x" * 900))
            written += 1
        except StorageError as error:
            assert "o.db" in str(error)
            lost += 1
    assert lost > 0
    assert outbox.pending() == written + 1

    outbox._database.execute("PRAGMA max_page_count = 100000")
    outbox.put("info", note(2))
    told = [
        e.body.text
        for e in outbox.batch().events
        if isinstance(e.body, Notice) and e.body.code == "outbox-full"
    ]
    assert told == [f"{lost} events were lost because the disk refused them"]
    assert sequences(outbox) == list(range(1, written + 4))


def test_file_size_limit_of_the_system_is_an_error_that_the_process_survives(tmp_path: Path) -> None:
    program = """
        import resource, signal, sys
        from pathlib import Path
        from hedgerow.edge_agent.outbox.store import Outbox
        from hedgerow.shared.errors import StorageError
        from hedgerow.shared.messages import Notice
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        outbox = Outbox(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, resource.RLIM_INFINITY))
        written = lost = 0
        for n in range(200):
            try:
                outbox.put("info", Notice("n", "x" * 900))
                written += 1
            except StorageError:
                lost += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        outbox.put("info", Notice("n", "after"))
        print(written, lost, outbox.pending())
    """
    done = run_python(program, str(tmp_path / "o.db"))

    written, lost, pending = map(int, done.split())
    assert written > 0 and lost > 0
    assert pending == written + 2


def test_what_was_put_survives_kill_minus_nine(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from hedgerow.edge_agent.outbox.store import Outbox
        from hedgerow.shared.messages import Notice
        outbox = Outbox(Path(sys.argv[1]))
        while True:
            print(outbox.put("info", Notice("n", "x")).sequence, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "o.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(50)]
    os.kill(child.pid, signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().split()]
    child.stdout.close()
    child.wait()
    outbox = Outbox(tmp_path / "o.db")

    kept = outbox.pending()
    assert told[-1] <= kept <= told[-1] + 1
    assert sequences(outbox)[:50] == told[:50]


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "o.db").mkdir()
    with pytest.raises(StorageError, match=r"o\.db"):
        Outbox(tmp_path / "o.db")


def run_python(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
