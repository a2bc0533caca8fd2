"""Recordings in SKAB's format of a made-up rig: independent noise, and a fault that lowers the flow."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TITLES = (
    "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;"
    "Volume Flow RateRMS;anomaly;changepoint"
)
LEVELS = np.array([0.2, 0.3, 2.4, 0.1, 80.0, 25.0, 230.0, 32.0])
SIZES = np.array([0.002, 0.002, 0.4, 0.2, 0.1, 0.05, 10.0, 0.5])


def write_recording(
    path: Path, seed: int, rows: int, fault: tuple[int, int], labels: tuple[int, int] | None = None
) -> None:
    """Write one file; ``labels`` are the rows called anomalous, by default those of the fault."""
    readings = LEVELS + SIZES * np.random.default_rng(seed).standard_normal((rows, 8))
    readings[fault[0] : fault[1], 7] -= 4.0
    first, last = labels or fault
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [TITLES]
    for n, row in enumerate(readings):
        stamp = f"2020-03-09 {10 + n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}"
        cells = ";".join(f"{value:.5f}" for value in row)
        lines.append(f"{stamp};{cells};{float(first <= n < last)};0.0")
    path.write_text("\n".join(lines) + "\n")
