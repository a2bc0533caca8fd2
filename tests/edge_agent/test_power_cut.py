"""A device killed in the middle of its writes, over and over: whatever it had acknowledged is there afterwards.

A process killed with SIGKILL loses what the kernel had not been given; a torn frame at the end of each write-ahead log
stands for what a power cut leaves of a write that was under way.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from pathlib import Path

import pytest

from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.slots import Slots
from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.messages import Notice
from hedgerow.shared.privacy.ledger_file import verify

pytestmark = [pytest.mark.system, pytest.mark.slow]
CUTS = 8
# Each store in a thread of its own, as fast as it can: a kill falls into the middle of something in most of them.
DEVICE = """
    import hashlib, os, sys, threading
    from pathlib import Path
    import numpy as np
    from hedgerow.edge_agent.outbox.store import Outbox
    from hedgerow.edge_agent.samples.store import SampleStore
    from hedgerow.edge_agent.slots import Slots
    from hedgerow.edge_agent.slots.record import InstalledFile
    from hedgerow.edge_agent.trainer.ledger import DeviceLedger
    from hedgerow.shared.messages import Notice
    from hedgerow.shared.privacy.entries import JobOpened, SampleRange
    from hedgerow.shared.specs import Sample

    home, first = Path(sys.argv[1]), int(sys.argv[2])

    def sha(data):
        return hashlib.sha256(data).hexdigest()

    def told(what, *values):
        os.write(1, (" ".join([what, *map(str, values)]) + "\\n").encode())

    def outbox(n):
        told("event", box.put("info", Notice("n", str(n))).sequence)

    def samples(n):
        block = [Sample("w", np.full((4, 2), n, np.float32), 10 * n + k, 10 * n + k, "raw") for k in range(3)]
        store.add(block)
        told("sample", n)

    def ledger(n):
        book.reserve("job", n, 0, "q")
        told("reserved", n)
        payload = b"noisy update %d" % n
        book.release("job", n, 0, "q", payload)
        told("released", n, sha(payload))

    def slot(n):
        files = {"model.onnx": b"model %d " % n * 500, "manifest.json": b"manifest %d" % n}
        digest = sha(files["manifest.json"])
        folder = slots.prepare(digest)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        slots.seal(n, digest, {name: InstalledFile(len(data), sha(data)) for name, data in files.items()})
        slots.activate(digest)
        slots.confirm(slots.check().installed)
        told("serving", n)

    box = Outbox(home / "outbox.db")
    store = SampleStore(home / "samples.db", max_bytes=2**28, max_age_s=None)
    slots = Slots(home / "slots", "pump")

    def forever(step):
        number = first
        while True:
            number += 1
            step(number)

    def forever_in_ledger():
        global book
        book = DeviceLedger(home / "ledger.db")
        if "job" not in book.state().jobs:
            plan = JobOpened("job", "r", SampleRange("w", 0, 9), 9, 8.0, 1e-5, 1.0, 0.1, 1.0, 1, 10**7)
            book.open_job(lambda _: plan)
        forever(ledger)

    steps = [lambda step=step: forever(step) for step in (outbox, samples, slot)]
    for run in [*steps, forever_in_ledger]:
        threading.Thread(target=run).start()
"""
KINDS = ("event", "sample", "reserved", "released", "serving")


def acknowledged(log: Path) -> dict[str, list[list[str]]]:
    """Return what the device had acknowledged, by kind; a last line that is cut off was not."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for line in log.read_bytes().decode().split("\n")[:-1]:
        kind, *values = line.split()
        found[kind].append(values)
    return found


def run_and_cut(home: Path, log: Path, number: int, chance: random.Random) -> None:
    """Let the device write until each store has acknowledged something, then kill it at a random moment."""
    before = {kind: len(found) for kind, found in acknowledged(log).items()}
    with log.open("ab") as out:
        command = [sys.executable, "-c", textwrap.dedent(DEVICE), str(home), str(number * 100_000)]
        child = subprocess.Popen(command, stdout=out)
    try:
        end = time.monotonic() + 60
        while any(len(acknowledged(log)[kind]) <= before.get(kind, 0) + 2 for kind in KINDS):
            assert child.poll() is None, "the device ended by itself"
            assert time.monotonic() < end, "the device does not write"
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def tear(wal: Path, chance: random.Random) -> None:
    """Append a piece of a frame to a write-ahead log, as a write that was cut off leaves it."""
    page, frame_head = 4096, 24
    data = wal.read_bytes() if wal.exists() else b""
    if len(data) > page + frame_head:
        with wal.open("ab") as file:
            file.write(data[-(page + frame_head) :][: chance.randrange(1, page + frame_head)])


def check_outbox(home: Path, told: list[list[str]]) -> None:
    box = Outbox(home / "outbox.db")
    try:
        rows = box._database.execute("SELECT sequence, body FROM events").fetchall()
    finally:
        box.close()
    assert {int(sequence) for (sequence,) in told} <= {sequence for sequence, _ in rows}
    assert not any(b"outbox-damaged" in body for _, body in rows)


def check_samples(home: Path, told: list[list[str]]) -> None:
    store = SampleStore(home / "samples.db", max_bytes=2**28, max_age_s=None)
    try:
        assert store.moved_aside is None
        found = store.read("w").arrays[:, 0, 0]
    finally:
        store.close()
    kept = sorted(int(value) for value in found)
    assert {int(number) for (number,) in told} <= set(kept)
    # A block of three is there whole or not at all.
    assert all(kept.count(number) == 3 for number in set(kept[-30:]))


def check_ledger(home: Path, reserved: list[list[str]], released: list[list[str]]) -> None:
    account = verify(home / "ledger.db").state.jobs["job"]
    assert {(int(number), 0) for (number,) in reserved} <= set(account.reserved)
    for number, digest in released:
        assert account.released[(int(number), 0)][0].update_sha256 == digest
    newest = max(account.released)
    ledger = DeviceLedger(home / "ledger.db")
    stored = ledger.reserve("job", *newest, "q")
    ledger.close()
    assert stored is not None
    assert sha256_hex(stored.payload) == account.released[newest][0].update_sha256


def check_slots(home: Path, told: list[list[str]]) -> None:
    choice = Slots(home / "slots", "pump").check()
    assert choice.source == "champion", choice.reason
    assert choice.installed is not None
    assert choice.installed.version >= max(int(number) for (number,) in told)


def test_what_was_acknowledged_survives_kills_in_the_middle_of_writes_and_torn_ends(tmp_path: Path) -> None:
    log = tmp_path / "acknowledged"
    log.touch()
    chance = random.Random(11)
    for number in range(CUTS):
        run_and_cut(tmp_path, log, number, chance)
        for name in ("outbox", "samples", "ledger"):
            tear(tmp_path / f"{name}.db-wal", chance)
        told = acknowledged(log)
        check_outbox(tmp_path, told["event"])
        check_samples(tmp_path, told["sample"])
        check_ledger(tmp_path, told["reserved"], told["released"])
        check_slots(tmp_path, told["serving"])
    assert all(len(told[kind]) >= 3 * CUTS for kind in KINDS)
    assert not list(tmp_path.glob("*damaged*"))


def test_the_probe_would_see_what_is_lost(tmp_path: Path) -> None:
    """The same looking at an outbox from which one acknowledged event was taken."""
    box = Outbox(tmp_path / "outbox.db")
    sequences = [[str(box.put("info", Notice("n", "x")).sequence)] for _ in range(3)]
    box.close()
    check_outbox(tmp_path, sequences)
    with sqlite3.connect(tmp_path / "outbox.db") as database:
        database.execute("DELETE FROM events WHERE sequence = 2")
    database.close()

    with pytest.raises(AssertionError):
        check_outbox(tmp_path, sequences)
