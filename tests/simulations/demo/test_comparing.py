"""Comparisons use rows that nobody trained on, and beat chance only by learning."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.simulations.demo.test_table import result

from hedgerow.edge_agent.samples.ingest import ingest_arrays
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.models.recipes.digits import device_split
from hedgerow.shared.errors import TransportError
from hedgerow.shared.job import Job
from hedgerow.shared.profile import read_profile
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.bench.skab_files import Recording
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.demo.comparing import beside, held_out_us
from hedgerow.simulations.demo.scene import Scene, simulated
from hedgerow.simulations.demo.sensors import RecordedSensor, row_of, write_images

CONFIGS = configs_folder()


def recorded_scene(anomaly: list[int], rows: int) -> Scene:
    flags = np.zeros(rows, bool)
    flags[anomaly] = True
    sensor = RecordedSensor(Recording("r", np.zeros((rows, 8), np.float32), flags, 0))
    scene = simulated(CONFIGS, 1)
    return msgspec.structs.replace(scene, sensors={"a": sensor}, recorded=True)


def test_held_out_windows_lie_in_the_replay_and_hold_no_anomaly() -> None:
    scene = recorded_scene([150], 200)
    length = scene.profile.window.length

    (ends,) = held_out_us(scene, 100)

    rows = [row_of(end) for end in ends]
    assert rows[0] == 100 + length - 1
    assert rows[-1] == 199
    assert all(not 150 - 0 <= row < 150 + length for row in rows)
    assert len(rows) == (100 - length + 1) - length


@pytest.mark.slow
def test_trained_digits_beat_untrained_ones(tmp_path: Path) -> None:
    profile = read_profile(CONFIGS / "profiles" / "pump.toml")
    homes = []
    for number, share in enumerate(device_split(2, 1.0, 7)):
        home = tmp_path / f"d{number}"
        home.mkdir()
        (home / "profile.toml").write_text((CONFIGS / "profiles" / "pump.toml").read_text())
        store = SampleStore(home / "samples.db", max_bytes=1 << 26, max_age_s=None)
        ingest_arrays(
            write_images(tmp_path, f"d{number}", share.images, share.labels), profile.tensor[0], store
        )
        store.close()
        homes.append(home)
    job = msgspec.structs.replace(read_toml(CONFIGS / "jobs" / "digits.toml", Job), rounds=4)

    compared = beside(
        job, msgspec.structs.replace(result().jobs[0], federated=0.5, metric="accuracy"), homes, ()
    )

    assert compared.untrained < 0.3
    assert compared.pooled > 0.7
    assert compared.local_only > compared.untrained
    assert (compared.federated, compared.metric) == (0.5, "accuracy")


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    job = read_toml(CONFIGS / "jobs" / "digits.toml", Job)

    with pytest.raises(TransportError, match="comparing digits failed"):
        beside(job, result().jobs[0], [tmp_path / "nowhere"], ())
