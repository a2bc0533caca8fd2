"""Replays are made of normal rows alone, and their drift can be exaggerated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.configs import CONFIGS
from tests.support.skab_rig import write_recording

from hedgerow.shared.errors import ContentError
from hedgerow.shared.profile import read_profile
from hedgerow.simulations.bench.selection.replays import Family, centred_mean, long_family, short_family

PROFILE = read_profile(CONFIGS / "profiles" / "skab.toml")


def test_short_replays_end_where_the_benchmark_stops_calling_rows_normal(tmp_path: Path) -> None:
    for seed in range(2):
        write_recording(tmp_path / "calm" / f"{seed}.csv", seed, rows=500, fault=(0, 0))
        write_recording(tmp_path / "broken" / f"{seed}.csv", seed, rows=500, fault=(400, 500))

    calm, broken = (
        short_family(sorted((tmp_path / name).glob("*.csv")), PROFILE) for name in ("calm", "broken")
    )

    assert calm.fit.shape == (2, 250, 8) and calm.rest.shape == (2, 150, 8)
    assert (calm.fit == broken.fit).all() and (calm.rest == broken.rest).all()


def test_long_replays_follow_one_another_and_need_no_label_column(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    write_recording(path, 1, rows=2000, fault=(0, 0))
    lines = [line.rsplit(";", 2)[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")

    family = long_family(path, PROFILE)

    assert family.fit.shape == (3, 400, 8) and family.rest.shape == (3, 750, 8)
    assert (family.rest[0, :400] == family.fit[1]).all()
    with pytest.raises(ContentError, match="at least 1150"):
        path.write_text("\n".join(lines[:1100]) + "\n")
        long_family(path, PROFILE)


def test_doubling_the_drift_doubles_what_is_slow_and_leaves_what_is_fast() -> None:
    at = np.arange(400.0)[None, :, None]
    slow, fast = 0.01 * at, np.where(at % 2 == 0, 1.0, -1.0)
    rows = slow + fast
    family = Family("made", rows[:, :200], rows[:, 200:])

    doubled = family.drifting(2.0)

    inside = slice(0, 150)  # the centred mean bends where the recording ends
    expected = rows[:, 200:] + slow[:, 200:] - slow[:, 199:200]
    assert np.abs(doubled - expected)[:, inside].max() < 0.05
    assert (family.drifting(1.0) == family.rest).all()


def test_the_centred_mean_is_the_mean_of_the_rows_about() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 2))

    mean = centred_mean(rows, 5)

    assert mean.shape == rows.shape
    assert mean[7] == pytest.approx(rows[5:10].mean(axis=0))
    assert mean[0] == pytest.approx((3 * rows[0] + rows[1] + rows[2]) / 5)
