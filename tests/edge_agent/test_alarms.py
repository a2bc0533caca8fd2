"""When windows become events: once at the start, once at the end, and never a flood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hedgerow.edge_agent.alarms import QUIET_WINDOWS, AlarmTracker
from hedgerow.edge_agent.inference.prediction import Answer, Prediction, Source
from hedgerow.shared.messages import Alarm, AlarmCleared, ChannelShare
from hedgerow.shared.specs import Sample

SECOND_US = 1_000_000
CHAMPION = Source("pump", 3, "c" * 64, "onnxruntime", "int8", "CPU")


def window(n: int, spec: str = "window") -> Sample:
    return Sample(spec, np.zeros((2, 1), np.float32), n * SECOND_US, (n + 1) * SECOND_US, "pump/1", 1.0)


def found(score: float | None, source: Source = CHAMPION, reason: Any = "champion") -> Prediction:
    share = (ChannelShare("flow", 1.0),)
    alarm = score is not None and score > 1.0
    return Prediction("window", reason, source, Answer(score, 1.0, alarm, share if alarm else ()), 5)


def test_first_alarming_window_is_told_with_its_origin_and_the_next_ones_are_not() -> None:
    tracker = AlarmTracker()
    assert tracker.follow(window(0), found(0.5)) is None
    told = tracker.follow(window(1), found(2.0))

    assert told is not None
    severity, alarm = told
    assert severity == "critical"
    assert isinstance(alarm, Alarm)
    assert (alarm.score, alarm.threshold, alarm.window_start_us) == (2.0, 1.0, SECOND_US)
    assert (alarm.model, alarm.bundle, alarm.runtime, alarm.precision) == (
        "pump",
        "c" * 64,
        "onnxruntime",
        "int8",
    )
    assert alarm.attribution == (ChannelShare("flow", 1.0),)
    assert all(tracker.follow(window(n), found(3.0)) is None for n in range(2, 20))
    assert tracker.active() == ("window",)


def test_alarm_is_over_after_quiet_windows_in_a_row_and_tells_how_long_it_lasted() -> None:
    tracker = AlarmTracker()
    tracker.follow(window(0), found(2.0))
    quiet = [tracker.follow(window(n), found(0.1)) for n in range(1, QUIET_WINDOWS)]
    assert quiet == [None] * (QUIET_WINDOWS - 1)
    assert tracker.follow(window(QUIET_WINDOWS), found(2.0)) is None

    ends = [tracker.follow(window(10 + n), found(0.1)) for n in range(QUIET_WINDOWS)]
    assert ends[:-1] == [None] * (QUIET_WINDOWS - 1)
    assert ends[-1] == ("info", AlarmCleared("pump", (10 + QUIET_WINDOWS) * SECOND_US, 10.0 + QUIET_WINDOWS))
    assert tracker.active() == ()
    assert tracker.follow(window(30), found(2.0)) is not None


def test_alarm_of_the_baseline_names_it_and_the_model_that_comes_is_news_once() -> None:
    tracker = AlarmTracker()
    told = tracker.follow(window(0), found(2.0, Source(), "baseline"))
    assert told is not None
    assert isinstance(told[1], Alarm)
    assert (told[1].reason, told[1].bundle, told[1].model) == ("statistical-baseline", "", "")

    second = tracker.follow(window(1), found(2.0))
    assert second is not None
    assert isinstance(second[1], Alarm)
    assert second[1].reason == "champion"
    turns = [tracker.follow(window(n), found(2.0, Source() if n % 2 else CHAMPION)) for n in range(2, 50)]
    assert turns == [None] * 48


def test_windows_without_an_answer_neither_raise_nor_end_an_alarm() -> None:
    tracker = AlarmTracker(quiet_windows=1)
    assert tracker.follow(window(0), found(None, Source(), "unknown")) is None
    tracker.follow(window(1), found(2.0))
    assert tracker.follow(window(2), found(None, Source(), "unknown")) is None
    assert tracker.active() == ("window",)


@pytest.mark.parametrize("specs", [("window", "other")])
def test_specs_are_followed_apart(specs: tuple[str, str]) -> None:
    tracker = AlarmTracker(quiet_windows=1)
    for spec in specs:
        assert tracker.follow(window(0, spec), found(2.0)) is not None
    tracker.follow(window(1, specs[0]), found(0.0))

    assert tracker.active() == (specs[1],)
