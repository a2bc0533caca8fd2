"""What the fleet detected in the replay, judged against what the demo knows: pure functions over alarms and rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.shared.messages import Alarm, AlarmCleared
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.scoring import StatisticalBaseline
from hedgerow.simulations.demo.sensors import row_of

ALARM_TOPIC = "alarm"
CLEARED_TOPIC = "alarm-cleared"


class Heard(msgspec.Struct, frozen=True):
    """An alarm of one device, from the first row of its first window to the last row at which it was over, or None."""

    device: str
    alarm: Alarm
    first_row: int
    end_row: int
    over_row: int | None = None


class Planted(msgspec.Struct, frozen=True):
    """The fault that the demo put into one machine."""

    device: str
    kind: str
    channel: str
    row: int


class Detection(msgspec.Struct, frozen=True):
    """How one detector did. ``delay_windows`` counts windows completed since the fault began, 1 is the first possible."""

    detector: Literal["model", "baseline"]
    detected: bool
    delay_windows: int | None
    false_alarms: int
    windows: int


def read_alarms(heard: Iterable[tuple[str, bytes]], since_row: int) -> list[Heard]:
    """Return the alarms that devices published about windows ending at ``since_row`` or later, in order."""
    found: list[Heard] = []
    for topic, payload in heard:
        parts = topic.split("/")
        device, kind = parts[2], parts[-1]
        if kind == ALARM_TOPIC:
            alarm = msgspec.json.decode(payload, type=Alarm)
            rows = row_of(alarm.window_start_us), row_of(alarm.window_end_us)
            if rows[1] >= since_row:
                found.append(Heard(device, alarm, *rows))
        elif kind == CLEARED_TOPIC:
            over = row_of(msgspec.json.decode(payload, type=AlarmCleared).window_end_us)
            found = [
                msgspec.structs.replace(h, over_row=over) if h.device == device and h.over_row is None else h
                for h in found
            ]
    return found


def delay_windows(end_row: int, fault_row: int, stride: int) -> int:
    """Return how many windows had been completed since the fault began when one ended at ``end_row``."""
    return (end_row - fault_row) // stride + 1


def judge(alarms: Sequence[Heard], planted: Planted, profile: DeviceProfile, windows: int) -> Detection:
    """Return how the models did on the replay: the planted fault found, everything else false."""
    true = [a for a in alarms if a.device == planted.device and a.end_row >= planted.row]
    delay = delay_windows(true[0].end_row, planted.row, profile.window.stride) if true else None
    return Detection("model", bool(true), delay, len(alarms) - len(true), windows)


def judge_baseline(
    profile: DeviceProfile,
    devices: dict[str, tuple[npt.NDArray[np.generic], npt.NDArray[np.int64], int]],
    planted: Planted | None,
) -> Detection:
    """Return how the statistical baseline would have done on the same windows.

    ``devices`` maps a name to all windows ``(n, rows, channels)``, the row at which each ends, and the first row of the
    replay; the baseline is fitted on the windows before it, as on the device.
    """
    found, delay, false, windows = False, None, 0, 0
    for device, (arrays, ends, replay_row) in devices.items():
        baseline = StatisticalBaseline(profile)
        fitted = baseline.fit(arrays[ends < replay_row])
        active = False
        for window, end in zip(arrays[ends >= replay_row], ends[ends >= replay_row], strict=True):
            windows += 1
            was, active = active, baseline.score(window, fitted).alarm
            if not active or was:
                continue
            if planted is not None and device == planted.device and end >= planted.row:
                if not found:
                    found, delay = True, delay_windows(int(end), planted.row, profile.window.stride)
            else:
                false += 1
    return Detection("baseline", found, delay, false, windows)


def rows_in_alarm(alarms: Sequence[Heard], device: str, first_row: int, rows: int) -> npt.NDArray[np.bool_]:
    """Return for each row of a replay whether the device stood in alarm: from a window's last row until it was over."""
    flags = np.zeros(rows, bool)
    for heard in alarms:
        if heard.device == device:
            end = first_row + rows if heard.over_row is None else heard.over_row + 1
            flags[max(0, heard.end_row - first_row) : max(0, end - first_row)] = True
    return flags
