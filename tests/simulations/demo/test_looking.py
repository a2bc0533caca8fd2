"""The demo falls short of exactly what is wrong with an alarm, and of nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.simulations.demo.test_table import result

from hedgerow.simulations.demo.detection import Planted
from hedgerow.simulations.demo.looking import shortfalls
from hedgerow.simulations.demo.result import AlarmResult

JOB = result().jobs[0]
PLANTED = Planted("pump-1", "bearing", "vibration-2", 4400)
GOOD = AlarmResult("pump-1", "vibration-2", JOB.manifest_sha256, "litert", "int8", 2, True, True, True, True)


def test_a_good_alarm_falls_short_of_nothing() -> None:
    assert shortfalls(GOOD, PLANTED, JOB) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"delay_windows": 3}, "after 3 windows"),
        ({"top_channel": "current"}, "names current first"),
        ({"bundle": ""}, "delivered bundle"),
        ({"precision": "float32"}, "int8"),
        ({"on_device": False}, "on the device"),
        ({"in_events": False}, "events"),
        ({"on_dashboard": False}, "dashboard"),
    ],
)
def test_each_fault_of_an_alarm_is_named(changes: dict[str, Any], said: str) -> None:
    (short,) = shortfalls(msgspec.structs.replace(GOOD, **changes), PLANTED, JOB)

    assert said in short
