"""The demo's processes are started, watched and ended by it, and say why they ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.shared.errors import TransportError
from hedgerow.simulations.processes.workplace import Workplace


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(tmp_path)
    yield place
    place.close()


def test_a_command_gives_its_output(work: Workplace) -> None:
    assert work.run("--version").startswith("hedgerow ")


def test_a_command_that_fails_says_why(work: Workplace) -> None:
    with pytest.raises(TransportError, match="no command group 'nonsense'"):
        work.run("nonsense")


def test_a_process_that_ends_on_its_own_is_noticed_with_its_last_words(work: Workplace) -> None:
    process = work.spawn("child", [sys.executable, "-c", "import sys; sys.exit('out of luck')"])
    process.wait(20)

    with pytest.raises(TransportError, match="child ended with 1: out of luck"):
        work.check()


def test_closing_ends_everything_even_what_will_not_listen(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hedgerow.simulations.processes.workplace.STOP_S", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = work.spawn("deaf", [sys.executable, "-c", deaf])
    assert process.stdout is not None
    process.stdout.readline()

    work.check()
    work.close()

    assert process.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
