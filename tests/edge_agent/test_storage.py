"""Opening what the agent keeps: on disk, and in memory where the disk refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hedgerow.edge_agent.config import OutboxConfig
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.storage import MEMORY_OUTBOX_EVENTS, open_storage
from hedgerow.shared.messages import EventAck, Notice
from hedgerow.shared.profile import StoreSpec

NOTE = Notice("x", "y")


def test_stores_are_on_disk_where_there_is_room(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    outbox, samples, notices = open_storage(home, OutboxConfig(), StoreSpec())
    outbox.put("info", NOTE)
    outbox.close()
    samples.close()
    assert notices == ()

    again = open_storage(home, OutboxConfig(), StoreSpec())
    assert again.outbox.pending() == 1
    again.outbox.close()
    again.samples.close()


def test_damaged_samples_are_told_of(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    home.samples.write_bytes(b"no database" * 1000)
    outbox, samples, notices = open_storage(home, OutboxConfig(), StoreSpec())
    assert [notice.code for notice in notices] == ["samples-damaged"]
    outbox.close()
    samples.close()


def test_a_disk_that_refuses_leaves_bounded_stores_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file where the folder should be: nothing can be made below it.
    blocked = tmp_path / "home"
    blocked.write_text("a file")
    monkeypatch.chdir(tmp_path)
    outbox, samples, notices = open_storage(AgentHome(blocked), OutboxConfig(), StoreSpec())
    assert {notice.code for notice in notices} == {"outbox-in-memory", "samples-in-memory"}
    for _ in range(MEMORY_OUTBOX_EVENTS + 10):
        outbox.put("info", NOTE)
    assert outbox.pending() <= MEMORY_OUTBOX_EVENTS
    batch = outbox.batch()
    outbox.acknowledged(EventAck(batch.epoch, batch.events[-1].sequence))
    assert samples.specs() == {}
    outbox.close()
    samples.close()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_full_disk_of_a_process_keeps_what_was_there(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    first = open_storage(home, OutboxConfig(), StoreSpec())
    first.outbox.put("info", NOTE)
    first.outbox.close()
    first.samples.close()
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from hedgerow.edge_agent.config import OutboxConfig\n"
        "from hedgerow.edge_agent.home import AgentHome\n"
        "from hedgerow.edge_agent.storage import open_storage\n"
        "from hedgerow.shared.profile import StoreSpec\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "made = open_storage(AgentHome(Path(sys.argv[1])), OutboxConfig(), StoreSpec())\n"
        "print(','.join(n.code for n in made.notices), made.outbox.pending())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "outbox-in-memory,samples-in-memory 0"

    again = open_storage(home, OutboxConfig(), StoreSpec())
    assert again.outbox.pending() == 1
    again.outbox.close()
    again.samples.close()
