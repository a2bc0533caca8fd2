"""Alarms and windows judged against slow accounts of the same rules, whatever devices say and in whatever order."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulations.demo.test_detection import alarm, heard, published, us

from hedgerow.shared.messages import Alarm, AlarmCleared
from hedgerow.shared.profile import Channel, DeviceProfile, WindowSpec
from hedgerow.shared.scoring import StatisticalBaseline
from hedgerow.simulations.bench.skab_files import Recording
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.demo.comparing import held_out_us
from hedgerow.simulations.demo.detection import (
    Heard,
    Planted,
    delay_windows,
    judge,
    judge_baseline,
    read_alarms,
    rows_in_alarm,
)
from hedgerow.simulations.demo.scene import Scene, simulated
from hedgerow.simulations.demo.sensors import RecordedSensor, Sensor, SimulatedSensor, row_of, time_of

PROFILE = DeviceProfile(
    "p",
    1,
    channel=(Channel("flow", "l/min", -100, 100, 0.0, 1.0), Channel("current", "A", -100, 100, 0.0, 1.0)),
    window=WindowSpec(length=8, stride=4),
)
PLANTED = Planted("b", "bearing", "flow", 100)
SIMULATED = simulated(configs_folder(), 1)

events = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["alarm", "alarm-cleared", "notice"]), st.integers(8, 60)
    ),
    max_size=20,
)


@settings(max_examples=80, deadline=None)
@given(events, st.integers(0, 70))
def test_each_alarm_of_the_replay_is_over_at_its_devices_next_clearing(
    stream: list[tuple[str, str, int]], since: int
) -> None:
    messages = []
    for device, kind, row in stream:
        body = alarm(row - 7, row) if kind == "alarm" else AlarmCleared("m", us(row), 1.0)
        messages.append(published(device, kind, body))

    found = read_alarms(messages, since)

    expected = []
    for n, (device, kind, row) in enumerate(stream):
        if kind == "alarm" and row >= since:
            later = (r for d, k, r in stream[n:] if d == device and k == "alarm-cleared")
            expected.append((device, row - 7, row, next(later, None)))
    assert [(h.device, h.first_row, h.end_row, h.over_row) for h in found] == expected


def test_a_message_that_is_no_alarm_where_one_should_be_is_not_swallowed() -> None:
    with pytest.raises(msgspec.ValidationError):
        read_alarms([("hedgerow/v1/a/up/alarm", b"{}")], 0)


def test_what_an_alarm_said_is_kept_whole() -> None:
    said = alarm(1, 8)

    (found,) = read_alarms([published("a", "alarm", said)], 8)

    assert found.alarm == said
    assert msgspec.json.decode(msgspec.json.encode(found), type=Heard) == found
    assert isinstance(found.alarm, Alarm)


@given(st.integers(0, 500), st.integers(0, 300), st.integers(1, 50))
def test_a_delay_counts_the_windows_that_ended_since_the_fault(fault: int, later: int, stride: int) -> None:
    end = fault + later
    # windows end every ``stride`` rows, this one among them
    ends = [end - n * stride for n in range(later // stride + 1)]

    assert all(row >= fault for row in ends)
    assert delay_windows(end, fault, stride) == len(ends)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(8, 200)), max_size=12))
def test_every_alarm_is_right_or_false_and_none_is_both(given_alarms: list[tuple[str, int]]) -> None:
    alarms = [heard(device, end) for device, end in given_alarms]

    found = judge(alarms, PLANTED, PROFILE, 77)

    right = [end for device, end in given_alarms if device == "b" and end >= 100]
    assert found.detected == bool(right)
    assert found.false_alarms == len(given_alarms) - len(right)
    assert found.delay_windows == ((right[0] - 100) // 4 + 1 if right else None)
    assert (found.detector, found.windows) == ("model", 77)


def quiet(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 8, 2)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), bumps=st.sets(st.integers(20, 50), max_size=8), known=st.booleans())
def test_the_baseline_alarms_where_a_run_of_loud_windows_begins(
    seed: int, bumps: set[int], known: bool
) -> None:
    windows = quiet(seed, 51)
    for n in bumps:
        windows[n, :, 1] += 40
    ends = 7 + 4 * np.arange(51)
    replay, planted = int(ends[20]), Planted("a", "clog", "current", int(ends[35]))

    found = judge_baseline(PROFILE, {"a": (windows, ends, replay)}, planted if known else None)

    fitted = StatisticalBaseline(PROFILE).fit(windows[:20])
    loud = [StatisticalBaseline(PROFILE).score(windows[n], fitted).alarm for n in range(20, 51)]
    begins = [n for n in range(20, 51) if loud[n - 20] and (n == 20 or not loud[n - 21])]
    right = [n for n in begins if known and n >= 35]
    assert set(bumps) <= {n for n in range(20, 51) if loud[n - 20]}
    assert found.detected == bool(right)
    assert found.delay_windows == (right[0] - 35 + 1 if right else None)
    assert found.false_alarms == len(begins) - len(right)
    assert found.windows == 31


def test_an_alarm_of_one_device_hides_none_of_the_next() -> None:
    windows = quiet(3, 30)
    windows[-1, :, 0] += 40
    ends = 7 + 4 * np.arange(30)

    found = judge_baseline(PROFILE, {name: (windows, ends, int(ends[20])) for name in "xy"}, None)

    assert found.false_alarms == 2


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.none() | st.integers(0, 15)), max_size=6
    ),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_a_row_stands_in_alarm_if_some_alarm_covers_it(
    spans: list[tuple[str, int, int | None]], first: int, count: int
) -> None:
    alarms = [heard(device, end, None if more is None else end + more) for device, end, more in spans]

    flags = rows_in_alarm(alarms, "a", first, count)

    expected = [
        any(d == "a" and end <= row and (more is None or row <= end + more) for d, end, more in spans)
        for row in range(first, first + count)
    ]
    assert flags.tolist() == expected


def recording(anomaly: list[bool]) -> RecordedSensor:
    flags = np.array(anomaly, np.bool_)
    return RecordedSensor(Recording("r", np.zeros((len(flags), 8), np.float32), flags, 0))


@settings(max_examples=40, deadline=None)
@given(
    anomalies=st.lists(st.lists(st.booleans().map(lambda x: x), max_size=60), min_size=1, max_size=3),
    replay=st.integers(0, 30),
    length=st.integers(1, 12),
)
def test_held_out_windows_are_all_those_of_normal_rows_alone(
    anomalies: list[list[bool]], replay: int, length: int
) -> None:
    profile = msgspec.structs.replace(
        SIMULATED.profile, window=msgspec.structs.replace(SIMULATED.profile.window, length=length)
    )
    sensors: dict[str, Sensor] = {str(n): recording(flags) for n, flags in enumerate(anomalies)}
    scene: Scene = msgspec.structs.replace(SIMULATED, profile=profile, sensors=sensors, recorded=True)

    found = held_out_us(scene, replay)

    for ends, flags in zip(found, anomalies, strict=True):
        starts = range(replay, len(flags) - length + 1)
        assert [row_of(end) for end in ends] == [
            start + length - 1 for start in starts if not any(flags[start : start + length])
        ]


def test_simulated_machines_have_no_labels_and_hold_nothing_out() -> None:
    assert held_out_us(SIMULATED, 0) == ((),) * len(SIMULATED.sensors)
    assert all(isinstance(sensor, SimulatedSensor) for sensor in SIMULATED.sensors.values())


@given(st.integers(0, 10**7))
def test_any_row_is_found_again_by_its_time_even_a_little_off(row: int) -> None:
    at = round(time_of(row).timestamp() * 1e6)

    assert row_of(at) == row_of(at + 400_000) == row_of(at - 400_000) == row
    assert math.isclose(time_of(row + 1).timestamp() - time_of(row).timestamp(), 1.0)
