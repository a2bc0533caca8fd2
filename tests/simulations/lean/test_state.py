"""What devices keep: each round reads what was before it, however often and wherever it was cut off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hedgerow.shared.errors import StorageError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.lean.state import FILE_NAME, DeviceState


def values(number: float, size: int = 5) -> np.ndarray:
    return np.full(size, number, np.float32)


def kept(state: DeviceState, device: int, round: int) -> float | None:
    found = state.before(device, round)
    return None if found is None else float(found[0])


@pytest.fixture(params=["memory", "folder"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DeviceState]:
    made = DeviceState(4, 5, None if request.param == "memory" else tmp_path / "state")
    yield made
    made.close()


def test_a_device_that_never_took_part_has_nothing(state: DeviceState) -> None:
    state.keep(1, 3, values(1))
    assert state.before(0, 100) is None
    assert state.before(1, 3) is None


def test_each_round_reads_the_newest_from_before_it(state: DeviceState) -> None:
    for round in (2, 5, 6, 9):
        state.keep(3, round, values(round))
    assert kept(state, 3, 9) == 6
    assert kept(state, 3, 10) == 9


def test_a_round_done_again_reads_what_it_read_the_first_time(state: DeviceState) -> None:
    for round in (1, 2):
        state.keep(0, round, values(round))
    state.keep(0, 3, values(-3))
    assert kept(state, 0, 3) == 2
    state.keep(0, 3, values(3))
    assert kept(state, 0, 3) == 2
    assert kept(state, 0, 4) == 3


def test_a_first_round_done_again_reads_nothing(state: DeviceState) -> None:
    state.keep(2, 4, values(-4))
    assert kept(state, 2, 4) is None
    state.keep(2, 4, values(4))
    assert kept(state, 2, 5) == 4


@pytest.mark.parametrize("earlier", [0, 1, 2, 3])
def test_a_write_cut_off_half_way_is_never_read(state: DeviceState, earlier: int) -> None:
    for round in range(1, earlier + 1):
        state.keep(0, round, values(round))
    original = os.pwrite

    def cut_off(file: int, data: bytes, at: int) -> int:
        if len(data) == 20:
            original(file, data[:8], at)
            raise OSError(28, "No space left on device")
        return original(file, data, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", cut_off)
        with pytest.raises(StorageError, match="could not be kept"):
            state.keep(0, 7, values(-7))
    assert kept(state, 0, 7) == (earlier or None)
    state.keep(0, 7, values(7))
    assert kept(state, 0, 7) == (earlier or None)
    assert kept(state, 0, 8) == 7


def test_what_two_later_rounds_overwrote_is_asked_for_in_vain(state: DeviceState) -> None:
    for round in (1, 2, 3):
        state.keep(0, round, values(round))
    with pytest.raises(EngineError, match="what device 0 kept before round 2 is gone"):
        state.before(0, 2)


def test_state_is_found_again_in_its_folder(tmp_path: Path) -> None:
    first = DeviceState(4, 5, tmp_path)
    first.keep(1, 6, values(6))
    first.close()
    first.close()
    again = DeviceState(4, 5, tmp_path)
    assert kept(again, 1, 7) == 6
    again.close()


def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    DeviceState(4, 5, tmp_path).close()
    with pytest.raises(StorageError, match="it is of another run"):
        DeviceState(4, 5_000, tmp_path)


def test_only_devices_that_took_part_take_space(tmp_path: Path) -> None:
    state = DeviceState(100_000, 10_000, tmp_path)
    state.keep(99_999, 1, values(1, 10_000))
    state.close()
    assert (tmp_path / FILE_NAME).stat().st_size > 100_000 * 80_000
    assert (tmp_path / FILE_NAME).stat().st_blocks * 512 < 1 << 20
