"""A disk that fills up at any byte of any file: the run says which, and goes on to the same end once there is room.

The limit is the kernel's own on the size of a file: every write is a real one that is cut off.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.support.simulation_play import played
from tests.support.simulation_results import result_of, round_of
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import StorageError
from hedgerow.simulations.report.write import write_report
from hedgerow.simulations.run.ledger import Ledger
from hedgerow.simulations.run.records import Result, RoundRecord
from hedgerow.simulations.run.results import read_result
from hedgerow.simulations.run.rounds_file import RoundsFile
from hedgerow.simulations.run.setting import Setting

CENTRAL = {
    "privacy": {"mode": "central-poisson", "noise_multiplier": 1.0, "delta": 1e-5},
    "cohort": {"rule": "poisson", "rate": 0.5},
}


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def setting(mode: str) -> Setting:
    return tiny_setting(tiny_scenario(4, job=CENTRAL if mode == "central" else {}))


@pytest.mark.parametrize("mode", ["none", "central"])
def test_wherever_the_disk_is_full_the_run_goes_on_to_the_same_end(tmp_path: Path, mode: str) -> None:
    whole = played(setting(mode), tmp_path / "whole")
    ledger = (tmp_path / "whole" / "ledger.jsonl").read_bytes()
    largest = max(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    stopped: set[str] = set()
    # Accounting makes a run with privacy slow: fewer of them.
    for limit in range(0, largest + 400, 270 if mode == "none" else 1100):
        folder = tmp_path / f"at-{limit}"
        try:
            with files_of_at_most(limit):
                found = played(setting(mode), folder)
        except StorageError as error:
            assert str(folder) in str(error), error
            stopped.add(str(error).split(":")[0].rsplit("/", 1)[-1])
            assert "None" not in str(error), error
            found = played(setting(mode), folder, resume=(folder / "checkpoint").exists())
        assert found.model_sha256 == whole.model_sha256, limit
        assert (folder / "ledger.jsonl").read_bytes() == ledger, limit
        assert [r.round for r in read_result(folder).rounds] == [1, 2, 3]
        rounds = (folder / "rounds.jsonl").read_bytes().splitlines()
        assert [msgspec.json.decode(line, type=RoundRecord).round for line in rounds] == [1, 2, 3]
        assert np.load(folder / "model.npy").size == 4
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    # The test has seen each kind of file refuse.
    assert stopped >= {"rounds.jsonl", "checkpoint", "results.json"}


def test_a_model_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    from hedgerow.simulations.run.results import write_result

    result: Result = result_of()
    before = np.arange(1000, dtype=np.float32)
    write_result(result, before, tmp_path)
    room = (tmp_path / "results.json").stat().st_size + 100

    with (
        files_of_at_most(room),
        pytest.raises(StorageError, match=r"model\.npy: cannot be written: File too"),
    ):
        write_result(result, np.zeros(100_000, np.float32), tmp_path)
    assert np.array_equal(np.load(tmp_path / "model.npy"), before)


def test_a_line_that_was_cut_off_is_not_part_of_the_ledger(tmp_path: Path) -> None:
    from hedgerow.shared.privacy.events import CentralRounds
    from hedgerow.simulations.run.ledger import Charge, Entry

    def entry(round: int) -> Entry:
        return Entry("", round, (Charge(CentralRounds(0.5, 1.0, 1)),))

    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.charge(entry(1))
    size = path.stat().st_size
    for room in range(1, size, 7):
        with files_of_at_most(size + room), pytest.raises(StorageError, match="cannot be written"):
            ledger.charge(entry(2))
        # Whoever begins anew finds what was whole, and what was not paid is not among it.
        again = Ledger(path)
        assert [one.round for one in again] == [1]
        assert again.charge(entry(3))
        again.close()
        at_last = Ledger(path)
        assert [one.round for one in at_last] == [1, 3]
        at_last.close()
        path.write_bytes(path.read_bytes()[:size])
    ledger.close()


def test_a_report_names_the_file_that_does_not_fit(tmp_path: Path) -> None:
    write_report(result_of(), tmp_path / "whole")
    for name in ("rounds.csv", "report.html", "plots/score.png"):
        folder = tmp_path / name.replace("/", "-")
        room = (tmp_path / "whole" / name).stat().st_size - 1
        with files_of_at_most(room), pytest.raises(StorageError, match="cannot be written") as caught:
            write_report(result_of(), folder)
        assert str(folder) in str(caught.value)
        assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_a_round_that_is_written_in_part_is_told(tmp_path: Path) -> None:
    rounds = RoundsFile(tmp_path, [])
    line = len(msgspec.json.encode(round_of(1))) + 1
    with files_of_at_most(line + 10):
        rounds.add(round_of(1))
        with pytest.raises(StorageError, match=r"rounds\.jsonl: cannot be written: the disk is full"):
            rounds.add(round_of(2))
    rounds.close()
