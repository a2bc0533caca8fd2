"""Engine ``fleet`` with privacy: what is claimed is what ledgers of real devices and of a real server add up to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dp_accounting
import msgspec
import pytest
from dp_accounting.pld import PLDAccountant
from tests.support.simulation_scenarios import DIGITS, table

from hedgerow.shared.tomlfile import from_table
from hedgerow.simulations.run.api import run
from hedgerow.simulations.run.records import WITHHELD, Result, RoundRecord
from hedgerow.simulations.scenario.spec import Scenario

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.xdist_group("simulated-fleet"),
    pytest.mark.timeout(240),
]
DELTA, ROUNDS, DEVICES, EXAMPLES = 1e-4, 2, 3, 431
PLANS: dict[str, dict[str, Any]] = {
    "example": {"mode": "example", "epsilon": 8.0, "delta": DELTA},
    "central-poisson": {"mode": "central-poisson", "epsilon": 8.0, "delta": DELTA, "clip_norm_l2": 0.5},
}
SMALL = {
    "engine": "fleet",
    "job__recipe": "mlp",
    "job__parameters": {"hidden": []},
    "job__rounds": ROUNDS,
    "job__training": {"batch_size": 32, "learning_rate": 0.5},
    "population__devices": DEVICES,
    "population__test_share": 0.1,
    "evaluation__per_device": True,
}


def played(mode: str, folder: Path) -> tuple[Result, list[RoundRecord]]:
    """Return the result of three devices, and what was told of its rounds while it ran."""
    changes = dict(SMALL)
    if mode == "central-poisson":
        changes["job__cohort"] = {"rule": "poisson", "rate": 0.8}
    made = table(DIGITS, **changes)
    made["job"]["privacy"] = PLANS[mode]
    told: list[RoundRecord] = []
    return run(from_table(made, Scenario, "private.toml"), folder=folder, progress=told.append), told


def epsilon(rate: float, noise: float, count: int) -> float:
    """Return ε by dp-accounting alone."""
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    accountant = PLDAccountant()
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, count))
    return float(accountant.get_epsilon(DELTA))


@pytest.mark.parametrize("mode", list(PLANS))
def test_a_fleet_trains_with_privacy_and_shows_what_its_ledgers_say(mode: str, tmp_path: Path) -> None:
    result, told = played(mode, tmp_path / "run")

    assert (result.state, [one.round for one in result.rounds]) == ("finished", [1, 2])
    privacy, noise = result.privacy, result.privacy.noise_multiplier
    assert noise is not None and privacy.epsilon is not None
    if mode == "example":
        # Batches of 32 of the 362 that 431 examples count as (the next power of the root of two below), to the device's plan.
        steps, rate = 12, 32 / 362.0386719675123
        expected = epsilon(rate, noise, ROUNDS * steps)
        assert all(one.epsilon == pytest.approx(expected, rel=0.01) for one in result.device_records)
    else:
        expected = epsilon(0.8, noise, ROUNDS)
        assert all(one.epsilon is None for one in result.device_records)
        assert all(WITHHELD in one.events for one in told)
    assert privacy.epsilon == pytest.approx(expected, rel=0.005)
    assert 7.5 < privacy.epsilon <= 8.0
    curve = [one.epsilon for one in result.rounds]
    assert curve[0] is not None and curve[1] is not None
    assert 0 < curve[0] < curve[1] <= 8.0
    assert (privacy.claim, privacy.delta) == ("as this fleet charged it, over simulated data", DELTA)
    assert result.noise_seed is None

    # Each device has a tenth of its digits held out, and the last model was scored on them.
    assert {one.n_samples for one in result.device_records} == {EXAMPLES}
    assert all(one.score is not None and 0 <= one.score <= 1 for one in result.device_records)
    mean = sum(one.score or 0.0 for one in result.device_records) / DEVICES
    assert result.rounds[-1].device_mean == pytest.approx(mean)
    assert msgspec.json.decode((tmp_path / "run" / "results.json").read_bytes(), type=Result) == result
