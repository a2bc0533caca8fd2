"""The checkpoint as a file: everything comes back, and no flipped bit passes for a run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hedgerow.shared.errors import ConfigError, IntegrityError, StorageError
from hedgerow.simulations.run.checkpoint import (
    FILE_NAME,
    Checkpoint,
    read_checkpoint,
    state_of,
    write_checkpoint,
)
from hedgerow.simulations.run.flight import Flight, Leg
from hedgerow.simulations.run.records import RoundRecord
from hedgerow.simulations.run.state import State, Totals

HASH = "ab" * 32
finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**62)


@st.composite
def states(draw: st.DrawFn) -> State:
    devices = draw(st.integers(1, 5))

    def column(values: Any, kind: type[Any]) -> Any:
        return np.array(draw(st.lists(values, min_size=devices, max_size=devices)), kind)

    totals = Totals(
        column(counts, np.int64),
        column(counts, np.int64),
        column(counts, np.int64),
        column(finite, np.float64),
    )
    legs = draw(
        st.lists(
            st.builds(Leg, finite, counts, st.integers(0, devices - 1), st.integers(0, 99), st.booleans()),
            max_size=3,
        )
    )
    flight = Flight(legs, draw(counts), draw(st.dictionaries(st.integers(0, 9), st.binary(max_size=8))), [0])
    played = draw(st.integers(0, 3))
    return State(
        model=np.array(draw(st.lists(st.floats(width=32), max_size=6)), np.float32),
        rule=draw(st.binary(max_size=20)),
        mechanism=draw(st.binary(max_size=20)),
        totals=totals,
        round=draw(st.integers(0, 1000)),
        simulated_s=draw(finite),
        wall_s=draw(finite),
        records=[RoundRecord(n + 1, 3, 2, {"non-finite": 1}, epsilon=0.5) for n in range(played)],
        initial_scores=draw(st.dictionaries(st.text(max_size=5), finite, max_size=2)),
        flight=draw(st.sampled_from([None, flight])),
    )


def written(folder: Path, state: State) -> Path:
    write_checkpoint(folder, state, HASH, "lean", {"kernel": "explicit:1"}, "2026-01-02T03:04:05+00:00")
    return folder / FILE_NAME


def some_state() -> State:
    return State(
        model=np.arange(4, dtype=np.float32), rule=b"rule", mechanism=b"state", totals=Totals.of(3), round=2
    )


@given(state=states())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_run_carries_comes_back_bit_for_bit(state: State, tmp_path: Path) -> None:
    written(tmp_path, state)
    found = read_checkpoint(tmp_path, HASH, "lean")
    again = state_of(found, len(state.totals.rounds))
    assert again.model.tobytes() == state.model.tobytes()  # NaN and -0.0 too
    for name in ("rounds", "bytes_up", "bytes_down", "train_s"):
        one, other = getattr(again.totals, name), getattr(state.totals, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
        one[0] = 1  # what comes back may be changed: it is no view of the file
    for name in (
        "rule",
        "mechanism",
        "round",
        "simulated_s",
        "wall_s",
        "records",
        "initial_scores",
        "flight",
    ):
        assert getattr(again, name) == getattr(state, name)
    assert (found.choices, found.started_at) == ({"kernel": "explicit:1"}, "2026-01-02T03:04:05+00:00")


@given(data=st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_flipped_bit_anywhere_is_damage(data: st.DataObject, tmp_path: Path) -> None:
    path = written(tmp_path, some_state())
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    with pytest.raises(IntegrityError, match=r"checkpoint: damaged.*another --folder"):
        read_checkpoint(tmp_path, HASH, "lean")


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, -1])
def test_a_file_cut_off_anywhere_is_damage(length: int, tmp_path: Path) -> None:
    path = written(tmp_path, some_state())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(IntegrityError, match=r"checkpoint: damaged"):
        read_checkpoint(tmp_path, HASH, "lean")


def sealed(value: Any) -> bytes:
    data = msgspec.msgpack.encode(value)
    return hashlib.sha256(data).digest() + data


def test_a_whole_file_of_another_release_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    path = written(tmp_path, some_state())
    found = msgspec.msgpack.decode(path.read_bytes()[32:], type=Checkpoint)
    path.write_bytes(sealed(msgspec.structs.replace(found, version=1)))
    with pytest.raises(IntegrityError, match=r"checkpoint: of another release \(version 1, here 2\)"):
        read_checkpoint(tmp_path, HASH, "lean")
    path.write_bytes(sealed({"version": 2, "model": "no bytes"}))
    with pytest.raises(IntegrityError, match=r"checkpoint: of another release: .*another --folder"):
        read_checkpoint(tmp_path, HASH, "lean")


def test_a_checkpoint_belongs_to_one_scenario_and_one_engine(tmp_path: Path) -> None:
    path = written(tmp_path, some_state())
    with pytest.raises(ConfigError, match=rf"{path}: belongs to another scenario"):
        read_checkpoint(tmp_path, "cd" * 32, "lean")
    with pytest.raises(ConfigError, match=r"was made by engine 'lean', not 'flower'"):
        read_checkpoint(tmp_path, HASH, "flower")


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_totals_of_other_devices_are_refused(devices: int, tmp_path: Path) -> None:
    written(tmp_path, some_state())
    found = read_checkpoint(tmp_path, HASH, "lean")
    with pytest.raises(IntegrityError, match=f"another number of devices than {devices}"):
        state_of(found, devices)
    assert state_of(found, 3).round == 2


def test_without_a_file_the_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"{tmp_path}/checkpoint: no checkpoint to resume from: No such"):
        read_checkpoint(tmp_path, HASH, "lean")


def test_writing_again_replaces_the_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for round in (1, 2, 3):
        state = some_state()
        state.round = round
        written(tmp_path, state)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert read_checkpoint(tmp_path, HASH, "lean").round == 3
