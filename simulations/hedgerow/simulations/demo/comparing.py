"""Puts a job's model beside the untrained, local-only and pooled ones, which a child process makes: torch stays there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from hedgerow.shared.errors import TransportError
from hedgerow.shared.job import Job
from hedgerow.simulations.demo.result import JobResult
from hedgerow.simulations.demo.scene import Scene
from hedgerow.simulations.demo.sensors import RecordedSensor, time_of

DEADLINE_S: Final = 180.0


class CompareRequest(msgspec.Struct, frozen=True):
    """What to compare: a job, and the folders of the devices that took part."""

    job: Job
    homes: tuple[str, ...]
    held_out_us: tuple[tuple[int, ...], ...] = ()
    """Per device, the ends of the windows to score on, in microseconds; empty for the recipe's public set."""


class Comparison(msgspec.Struct, frozen=True):
    """Scores on the public set; ``local_only`` is the mean over devices."""

    untrained: float
    local_only: float
    pooled: float
    federated: float | None = None
    """What the bundle in the first device's slot reaches on held-out windows; None on the public set."""


def held_out_us(scene: Scene, replay_row: int) -> tuple[tuple[int, ...], ...]:
    """Return, per device, the ends of replayed windows whose rows the labels all call normal, in microseconds."""
    length = scene.profile.window.length
    found = []
    for sensor in scene.sensors.values():
        anomaly = sensor.recording.anomaly if isinstance(sensor, RecordedSensor) else np.zeros(0, bool)
        ends = [
            round(time_of(end).timestamp() * 1e6)
            for end in range(replay_row + length - 1, len(anomaly))
            if not anomaly[end - length + 1 : end + 1].any()
        ]
        found.append(tuple(ends))
    return tuple(found)


def beside(
    job: Job, result: JobResult, homes: Sequence[Path], held_out: tuple[tuple[int, ...], ...]
) -> JobResult:
    """Return ``result`` with the other models' scores. Raises TransportError if the child fails."""
    request = CompareRequest(job, tuple(str(home) for home in homes), held_out)
    command = [sys.executable, "-m", "hedgerow.simulations.demo.compare"]
    asked = msgspec.json.encode(request)
    done = subprocess.run(command, input=asked, capture_output=True, timeout=DEADLINE_S, check=False)
    if done.returncode != 0:
        raise TransportError(f"comparing {job.name} failed: {done.stderr.decode()[-800:]}")
    found = msgspec.json.decode(done.stdout.splitlines()[-1], type=Comparison)
    on_recordings = found.federated is not None
    return msgspec.structs.replace(
        result,
        metric=f"{result.metric}, later normal rows" if on_recordings else result.metric,
        federated=result.federated if found.federated is None else found.federated,
        untrained=found.untrained,
        local_only=found.local_only,
        pooled=found.pooled,
    )
