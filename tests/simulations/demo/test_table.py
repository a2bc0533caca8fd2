"""The last tables say everything that the JSON says, in words."""

from __future__ import annotations

import io

from rich.console import Console

from hedgerow.simulations.demo.detection import Detection, Planted
from hedgerow.simulations.demo.result import AlarmResult, DemoResult, DeviceResult, JobResult, LabelledResult
from hedgerow.simulations.demo.table import print_result


def result(**changes: object) -> DemoResult:
    job = JobResult(
        "j1", "pump-anomaly", "example", 8, 20.0, "explained", -0.04, 0.42, 0.63, 0.88, 3e5, 2.9e5, "pump-anomaly", 1,
        "ab" * 32, 5, {"litert.int8": {"size_bytes": 17000.0, "latency_p50_us": 1.7}},
    )  # fmt: skip
    values: dict[str, object] = {
        "success": True, "seconds": 100.0, "source": "simulated pumps", "broker": "mosquitto", "jobs": (job,),
        "devices": (DeviceResult("pump-1", 7.996, 1e-4, 4e-4, 64, "litert", "int8", 45_000_000, 1000, 2000),),
        "detection": (Detection("model", True, 1, 0, 160), Detection("baseline", False, None, 3, 160)),
        "planted": Planted("pump-1", "bearing", "vibration-2", 4400),
        "alarm": AlarmResult("pump-1", "vibration-2", "ab" * 32, "litert", "int8", 1, True, True, True, False),
        "labelled": None, "shortfalls": (),
    }  # fmt: skip
    return DemoResult(**(values | changes))  # type: ignore[arg-type]


def printed(**changes: object) -> str:
    out = io.StringIO()
    print_result(result(**changes), Console(file=out, width=200))
    return out.getvalue()


def test_every_part_is_there() -> None:
    text = printed()

    for piece in (
        "-0.040",
        "0.630",
        "0.880",
        "17.0 kB",
        "2 µs",
        "45.0 MB",
        "baseline",
        "seen on device, MQTT, events",
    ):
        assert piece in text
    assert "dashboard" not in text.split("seen on")[1].splitlines()[0]
    assert "done in 100 s" in text


def test_shortfalls_are_named() -> None:
    text = printed(success=False, shortfalls=("the fault raised no alarm",))

    assert "fell short: the fault raised no alarm" in text
    assert "FAILED" in text


def test_labels_are_reported_as_they_are() -> None:
    assert "F1 0.84, false alarms 7.7%, missed 22.5%" in printed(
        labelled=LabelledResult(3610, 0.84, 0.077, 0.225)
    )
