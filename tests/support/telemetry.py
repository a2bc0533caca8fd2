"""Profiles, payloads and waiting that telemetry tests share."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from hedgerow.shared.profile import Channel, ClockSpec, CsvSpec, DeviceProfile, SourceSpec, WindowSpec

T0_S = 1_767_225_600
T0_US = T0_S * 1_000_000


def channel(name: str, **changes: Any) -> Channel:
    """Return a channel in volts between -1000 and 1000."""
    given: dict[str, Any] = {
        "name": name,
        "unit": "V",
        "minimum": -1e3,
        "maximum": 1e3,
        "nominal": 0.0,
        "spread": 1.0,
    }
    return Channel(**given | changes)


def profile(*names: str, source: SourceSpec | None = None, **changes: Any) -> DeviceProfile:
    """Return a profile of channels at 1 Hz, windows of four rows, fed by objects with a time in seconds."""
    names = names or ("a", "b")
    given: dict[str, Any] = {
        "name": "bench",
        "version": 1,
        "channel": tuple(channel(name) for name in names),
        "window": WindowSpec(length=4, stride=1),
        "source": (source or SourceSpec("s/x", timestamp="t", timestamp_unit="s"),),
        "csv": CsvSpec(timestamp="t", timestamp_format="s"),
        "clock": ClockSpec(),
    }
    return DeviceProfile(**given | changes)


def payload(second: float, **values: float | None) -> bytes:
    """Return one JSON object, dated ``second`` seconds after ``T0_S``."""
    return json.dumps({"t": T0_S + second, **values}).encode()


def wait_until(true: Callable[[], bool], within_s: float = 60.0) -> bool:
    """Return whether ``true`` came true in time; for what another process does and tells nobody."""
    pause = threading.Event()
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if true():
            return True
        pause.wait(0.01)
    return true()
