"""FedPer from end to end on the lean engine, against its algorithm in numpy (Arivazhagan et al. 2019, algorithm 1 and 2).

The tiny recipe's weights are shared, its bias stays on each device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_play import LinearOracle
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.run.cohort import draw
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.play import Plan, play_setting
from hedgerow.simulations.run.records import Result
from hedgerow.simulations.run.setting import Setting, last_values

RATE = 0.05
COUNTS = (3, 5, 2, 4)
REFERENCE = {"kernel": "reference:1", "device": "cpu"}


def setting_of(rounds: int = 4, tests: int = 3, **changes: Any) -> Setting:
    job = {
        "rounds": rounds,
        "training": {"batch_size": 64, "learning_rate": RATE, "local_epochs": 2},
        "strategy": {
            "name": "fedper",
            "options": {"personal_tensors": 1},
            "server_learning_rate": 0.8,
            **changes.pop("strategy", {}),
        },
        **changes.pop("job", {}),
    }
    evaluation = {"per_device": True}
    scenario = tiny_scenario(
        4, job=job, evaluation=evaluation, population={"devices": 4, "test_share": 0.5}, **changes
    )
    return tiny_setting(scenario, counts=COUNTS, tests=tests)._replace(personal=1)


def lean(setting: Setting, folder: Path | None = None, workers: int = 1, **plan: Any) -> Result:
    return play_setting(setting, Plan(workers=workers, folder=folder, choices=REFERENCE, **plan), Interrupt())


class Devices:
    """All devices and the server by the paper: everybody trains all of it, the server averages what is shared."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.shared = setting.model[:3].astype(np.float64)
        self.bias = np.full(4, float(setting.model[3]))
        self.oracle = LinearOracle(RATE)

    def round(self, number: int, trained: list[int], counted: list[int], weights: list[float]) -> None:
        moves = {}
        for device in trained:
            model = np.concatenate([self.shared, self.bias[[device]]])
            update = self.oracle.update(model, self.setting.population.at(number).of(device)[0], steps=2)
            moves[device] = update[:3]
            self.bias[device] += update[3]
        if counted:
            mean = sum(w * moves[d] for d, w in zip(counted, weights, strict=True)) / sum(weights)
            self.shared = self.shared + 0.8 * mean

    def losses(self) -> list[float]:
        """Return each device's mean squared error on its held-out examples, with its own bias."""
        test = self.setting.population.device_test
        assert test is not None
        found = []
        for device in range(4):
            x, _ = test.of(device)
            error = x @ self.shared + self.bias[device] - x.sum(axis=1)
            found.append(float(np.mean(error**2)))
        return found


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_every_round_is_the_papers(weighting: str, tmp_path: Path) -> None:
    setting = setting_of(strategy={"weighting": weighting})
    result = lean(setting, tmp_path)
    fleet = Devices(setting)
    weights = [1.0] * 4 if weighting == "uniform" else list(map(float, COUNTS))
    for number in range(1, 5):
        fleet.round(number, [0, 1, 2, 3], [0, 1, 2, 3], weights)
        assert result.rounds[number - 1].device_mean == pytest.approx(np.mean(fleet.losses()), rel=1e-4)
    model = np.load(tmp_path / "model.npy")
    assert np.allclose(model[:3], fleet.shared, atol=1e-5)
    assert model[3] == setting.model[3]
    assert [one.loss for one in result.device_records] == pytest.approx(fleet.losses(), rel=1e-4)


def test_who_is_not_drawn_keeps_the_layers_it_had(tmp_path: Path) -> None:
    setting = setting_of(rounds=6, job={"cohort": {"rule": "fixed", "size": 2}})
    result = lean(setting, tmp_path)
    fleet = Devices(setting)
    seen = set()
    for number in range(1, 7):
        drawn = draw(setting.scenario.job.cohort, 4, setting.scenario.seed, number).tolist()
        seen |= set(drawn)
        fleet.round(number, drawn, drawn, [1.0, 1.0])
    assert len(seen) >= 3
    assert np.allclose(np.load(tmp_path / "model.npy")[:3], fleet.shared, atol=1e-5)
    assert [one.loss for one in result.device_records] == pytest.approx(fleet.losses(), rel=1e-4)


def test_bytes_are_those_of_the_shared_layers_alone() -> None:
    result = lean(setting_of(rounds=2))
    for record in result.rounds:
        assert (record.bytes_up, record.bytes_down) == (4 * 3 * 4, 4 * 3 * 4)
    assert all((one.bytes_up, one.bytes_down) == (24, 24) for one in result.device_records)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_that_goes_on_finds_every_devices_layers(stop: int, tmp_path: Path) -> None:
    setting = setting_of(job={"cohort": {"rule": "fixed", "size": 3}})
    whole = lean(setting, tmp_path / "whole")
    lean(setting, tmp_path / "cut", until=stop)
    rest = lean(setting, tmp_path / "cut", resume=True)
    assert rest.model_sha256 == whole.model_sha256
    assert rest.device_records == whole.device_records


def test_a_round_that_was_cut_off_is_trained_again_from_the_layers_before_it(tmp_path: Path) -> None:
    setting = setting_of()
    whole = lean(setting)

    class PowerCutError(Exception):
        pass

    def cut(record: Any) -> None:
        # The devices have kept round 3 by now, and the checkpoint that tells of it is put back to round 2's.
        if record.round == 2:
            (tmp_path / "old").write_bytes((tmp_path / "run" / "checkpoint").read_bytes())
        if record.round == 3:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        lean(setting, tmp_path / "run", progress=cut)
    (tmp_path / "run" / "checkpoint").write_bytes((tmp_path / "old").read_bytes())
    rest = lean(setting, tmp_path / "run", resume=True)
    assert rest.model_sha256 == whole.model_sha256
    assert [one.loss for one in rest.device_records] == [one.loss for one in whole.device_records]


def test_how_many_workers_does_not_show(tmp_path: Path) -> None:
    setting = setting_of()
    one, three = lean(setting, workers=1), lean(setting, workers=3)
    assert one.model_sha256 == three.model_sha256
    assert one.device_records == three.device_records


@pytest.mark.parametrize(
    ("sizes", "tensors", "values"), [([3, 1], 1, 1), ([6, 4, 8, 2], 2, 10), ([6, 4, 8, 2], 3, 14)]
)
def test_the_last_tensors_are_counted_from_the_end(sizes: list[int], tensors: int, values: int) -> None:
    assert last_values(sizes, tensors) == values


@pytest.mark.parametrize("tensors", [0, -1, 2, 3])
def test_something_must_be_shared_and_something_kept(tensors: int) -> None:
    with pytest.raises(ConfigError, match=r"personal_tensors: expected 1 to 1 of the model's 2 tensors"):
        last_values([3, 1], tensors)
