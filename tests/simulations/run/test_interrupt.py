"""Ctrl-C inside one process, the rounds as they are written, and the API's own use of both."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path

import msgspec
import pytest
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import StorageError
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.play import Plan, play_setting
from hedgerow.simulations.run.records import RoundRecord
from hedgerow.simulations.run.rounds_file import RoundsFile


def test_the_first_asks_and_the_second_interrupts() -> None:
    told = []
    with Interrupt(lambda: told.append("once")) as heard:
        assert not heard.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert heard.asked and told == ["once"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert told == ["once"]


def test_what_heard_ctrl_c_before_hears_it_again_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_on_another_thread_it_hears_nothing_and_does_not_fail() -> None:
    found = []

    def use() -> None:
        with Interrupt() as heard:
            found.append(heard.asked)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_run_ends_after_the_round_in_which_it_was_asked_to() -> None:
    setting = tiny_setting(tiny_scenario(4, job={"rounds": 9}))

    def at_three(record: RoundRecord) -> None:
        if record.round == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with Interrupt() as heard:
        result = play_setting(setting, Plan(progress=at_three), heard, InProcessEngine.make)
    assert (result.state, len(result.rounds)) == ("interrupted", 3)


def record(round: int) -> RoundRecord:
    return RoundRecord(round=round, drawn=3, counted=2, scores={"error": 0.5})


def test_rounds_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    file = RoundsFile(tmp_path / "out", [])
    file.add(record(1))
    file.add(record(2))
    lines = (tmp_path / "out" / "rounds.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=RoundRecord) for line in lines] == [record(1), record(2)]
    file.close()
    file.close()


def test_starting_again_writes_what_is_known_and_forgets_the_rest(tmp_path: Path) -> None:
    file = RoundsFile(tmp_path, [])
    for round in (1, 2, 3):
        file.add(record(round))
    file.close()
    RoundsFile(tmp_path, [record(1)]).close()
    assert len((tmp_path / "rounds.jsonl").read_bytes().splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/rounds\.jsonl: cannot be written"):
        RoundsFile(tmp_path / "file", [])


def test_a_full_disk_is_told_with_the_path(tmp_path: Path) -> None:
    file = RoundsFile(tmp_path, [])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(StorageError, match=r"rounds\.jsonl: cannot be written"):
            for round in range(9):
                file.add(record(round))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        file.close()
