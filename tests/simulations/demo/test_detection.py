"""What counts as found, as false and as late: judged from alarms against what was planted."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from hedgerow.shared.messages import Alarm, AlarmCleared, ChannelShare
from hedgerow.shared.profile import Channel, DeviceProfile, WindowSpec
from hedgerow.simulations.demo.detection import (
    Heard,
    Planted,
    delay_windows,
    judge,
    judge_baseline,
    read_alarms,
    rows_in_alarm,
)
from hedgerow.simulations.demo.sensors import time_of

PROFILE = DeviceProfile(
    "p",
    1,
    channel=(Channel("flow", "l/min", -100, 100, 0.0, 1.0), Channel("current", "A", -100, 100, 0.0, 1.0)),
    window=WindowSpec(length=8, stride=4),
)
PLANTED = Planted("b", "bearing", "flow", 100)


def us(row: int) -> int:
    return round(time_of(row).timestamp() * 1e6)


def alarm(start: int, end: int) -> Alarm:
    share = (ChannelShare("flow", 1.0),)
    return Alarm(2.0, 1.0, us(start), us(end), share, "m", "ab", "litert", "int8", "champion")


def published(device: str, kind: str, body: object) -> tuple[str, bytes]:
    return f"hedgerow/v1/{device}/up/{kind}", msgspec.json.encode(body)


def heard(device: str, end: int, over: int | None = None) -> Heard:
    return Heard(device, alarm(end - 7, end), end - 7, end, over)


def test_alarms_are_read_in_order_with_their_ends() -> None:
    stream = [
        published("a", "alarm", alarm(0, 7)),
        published("a", "alarm-cleared", AlarmCleared("m", us(20), 13.0)),
        published("b", "alarm", alarm(100, 107)),
        published("b", "notice", {"type": "notice", "code": "c", "text": "t"}),
    ]

    found = read_alarms(stream, 0)

    assert [(h.device, h.first_row, h.end_row, h.over_row) for h in found] == [
        ("a", 0, 7, 20),
        ("b", 100, 107, None),
    ]


def test_alarms_about_windows_before_the_replay_do_not_count() -> None:
    assert read_alarms([published("a", "alarm", alarm(0, 7))], 8) == []


@pytest.mark.parametrize(("end", "delay"), [(100, 1), (103, 1), (104, 2), (107, 2), (108, 3)])
def test_the_first_window_that_can_see_the_fault_counts_as_one(end: int, delay: int) -> None:
    assert delay_windows(end, 100, stride=4) == delay


def test_only_the_planted_device_after_the_fault_is_right() -> None:
    alarms = [heard("a", 50), heard("b", 99), heard("b", 104)]

    found = judge(alarms, PLANTED, PROFILE, 300)

    assert (found.detected, found.delay_windows, found.false_alarms) == (True, 2, 2)


def test_a_fault_that_nobody_saw_is_not_found() -> None:
    found = judge([heard("a", 104)], PLANTED, PROFILE, 300)

    assert (found.detected, found.delay_windows, found.false_alarms) == (False, None, 1)


def test_the_baseline_is_judged_on_the_same_windows() -> None:
    rng = np.random.default_rng(0)
    ends = np.arange(7, 160, 4)
    quiet = rng.normal(0, 1, (len(ends), 8, 2)).astype(np.float32)
    broken = quiet.copy()
    broken[ends >= 100, :, 0] += 30

    found = judge_baseline(PROFILE, {"a": (quiet, ends, 80), "b": (broken, ends, 80)}, PLANTED)

    assert found.detected
    assert found.delay_windows == 1
    assert found.windows == 2 * int((ends >= 80).sum())


def test_rows_stand_in_alarm_from_the_window_that_raised_it_until_it_was_over() -> None:
    flags = rows_in_alarm([heard("a", 12, 15), heard("b", 11), heard("a", 18)], "a", 10, 10)

    assert flags.tolist() == [False, False, True, True, True, True, False, False, True, True]
