from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.clock import TOLERANCE_US, LastKnownTime, read_last_known_us

NOW_US = 1_780_000_000_000_000
HOUR_US = 3_600_000_000


class Clock:
    us = NOW_US

    def __call__(self) -> int:
        return self.us


def test_time_only_moves_forward(tmp_path: Path) -> None:
    known = LastKnownTime(tmp_path / "clock.json", Clock())
    known.learn(NOW_US)
    known.learn(NOW_US - HOUR_US)

    assert known.known_us == NOW_US


def test_a_clock_in_1970_is_noticed_after_a_restart(tmp_path: Path) -> None:
    LastKnownTime(tmp_path / "clock.json", Clock()).learn(NOW_US)
    clock = Clock()
    clock.us = 1000
    again = LastKnownTime(tmp_path / "clock.json", clock)

    assert not again.clock_ok()
    clock.us = NOW_US - TOLERANCE_US
    assert again.clock_ok()


def test_without_knowledge_every_clock_is_believed(tmp_path: Path) -> None:
    clock = Clock()
    clock.us = 0

    assert LastKnownTime(tmp_path / "clock.json", clock).clock_ok()


def test_own_clock_in_the_far_future_teaches_nothing(tmp_path: Path) -> None:
    clock = Clock()
    clock.us = NOW_US * 10
    known = LastKnownTime(tmp_path / "clock.json", clock)
    known.learn(NOW_US)
    clock.us = NOW_US

    assert known.clock_ok()


def test_absurd_times_are_not_learnt(tmp_path: Path) -> None:
    known = LastKnownTime(tmp_path / "clock.json", Clock())
    known.learn(2**62)
    known.learn(-5)

    assert known.known_us == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"[]",
        b'{"last_known_us": "x"}',
        b'{"last_known_us": -1}',
        b'{"last_known_us": 1e400}',
    ],
)
def test_damaged_file_counts_as_nothing_known(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clock.json").write_bytes(content)

    assert read_last_known_us(tmp_path / "clock.json") == 0


def test_full_disk_is_tolerated(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    known = LastKnownTime(tmp_path / "file" / "clock.json", Clock())
    known.learn(NOW_US)

    assert known.known_us == NOW_US


@given(st.lists(st.integers(-(2**63), 2**63), max_size=20))
def test_what_is_on_disk_never_runs_ahead_of_what_is_known(
    tmp_path_factory: pytest.TempPathFactory, times: list[int]
) -> None:
    path = tmp_path_factory.mktemp("clock") / "clock.json"
    known = LastKnownTime(path, Clock())
    before = 0
    for time_us in times:
        known.learn(time_us)
        assert before <= known.known_us
        assert read_last_known_us(path) <= known.known_us
        before = known.known_us
