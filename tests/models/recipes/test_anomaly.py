"""The anomaly autoencoder as a recipe: parameters, private examples, public set, scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support.configs import CONFIGS

from hedgerow.models.pump import CHANNELS, Machine, draw_machine
from hedgerow.models.pump.public import cut
from hedgerow.models.recipe import find_recipe, recipe_hash
from hedgerow.models.recipes.anomaly import RECIPE, area_under_curve
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import read_profile
from hedgerow.shared.scoring import Scorer

PROFILE = read_profile(CONFIGS / "profiles" / "pump.toml")


def pump_windows(seed: int = 0, count: int = 12) -> np.ndarray:
    return cut(Machine(draw_machine(seed), seed).rows(16 * count), 16, 16).astype(np.float32)


def test_it_is_installed_under_its_name() -> None:
    assert find_recipe("anomaly-autoencoder") is RECIPE
    assert len(recipe_hash(RECIPE)) == 64


def test_checked_parameters_are_plain_and_checking_again_changes_nothing() -> None:
    once = RECIPE.check({"hidden": 8})

    assert once["hidden"] == 8
    assert RECIPE.check(once) == once
    assert isinstance(once["channels"], list)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"hiden": 8}, "hiden"),
        ({"hidden": 0}, "hidden"),
        ({"rows": "many"}, "rows"),
        ({"scaling": "secret"}, "scaling"),
        ({"slow": ["steam"]}, "steam"),
        ({"channels": []}, "channels"),
    ],
)
def test_wrong_parameters_are_refused_by_name(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RECIPE.check(parameters)


def test_the_module_gives_back_what_the_specs_say_and_has_no_batch_statistics() -> None:
    module = RECIPE.build({})
    x = torch.randn(5, *RECIPE.input_spec({}).shape)

    assert tuple(module(x).shape[1:]) == RECIPE.output_spec({}).shape == (16, 8)
    assert list(module.buffers()) == []
    assert tuple(RECIPE.loss(module, x, None).shape) == (5,)


def test_the_loss_of_an_example_does_not_depend_on_the_batch() -> None:
    module, x = RECIPE.build({}), torch.randn(6, 16, 8)

    together = RECIPE.loss(module, x, None)
    alone = torch.cat([RECIPE.loss(module, x[n : n + 1], None) for n in range(6)])

    assert torch.allclose(together, alone, atol=1e-6)


def test_a_private_example_depends_on_its_own_window_alone() -> None:
    windows = pump_windows()
    everything = RECIPE.training_set(windows, [None] * 12, PROFILE, {}, True).x
    others = windows.copy()
    others[1:] = others[1:] * 3 + 7

    assert np.array_equal(RECIPE.training_set(others, [None] * 12, PROFILE, {}, True).x[0], everything[0])
    assert np.array_equal(RECIPE.training_set(windows[3:4], [None], PROFILE, {}, True).x[0], everything[3])


@pytest.mark.parametrize("parameters", [{"drift_ratio": 0.01}, {"centring": "window"}])
def test_no_option_lets_other_windows_into_a_private_example(parameters: dict[str, Any]) -> None:
    windows = pump_windows()
    everything = RECIPE.training_set(windows, [None] * 12, PROFILE, parameters, True).x
    alone = [RECIPE.training_set(w[None], [None], PROFILE, parameters, True).x[0] for w in windows]

    assert np.array_equal(everything, np.stack(alone))


def test_device_scaling_is_refused_with_privacy() -> None:
    with pytest.raises(ConfigError, match="not private"):
        RECIPE.training_set(pump_windows(), [None] * 12, PROFILE, {"scaling": "device"}, True)


def test_training_and_serving_make_the_same_input() -> None:
    windows = pump_windows(count=40)
    rule = RECIPE.scoring({})
    assert rule is not None
    scorer = Scorer(rule, PROFILE)

    trained_on = RECIPE.training_set(windows, [None] * 40, PROFILE, {}, True).x
    served = scorer.transform(windows, scorer.fit(windows, np.zeros_like))

    assert np.array_equal(trained_on, served)


def test_windows_labelled_as_anomalies_are_left_out() -> None:
    made = RECIPE.training_set(pump_windows(count=3), [None, 1, 0], PROFILE, {}, False)

    assert len(made.x) == 2
    with pytest.raises(ContentError):
        RECIPE.training_set(pump_windows(count=1), [1], PROFILE, {}, False)


def test_a_device_with_other_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match="wants channels"):
        RECIPE.training_set(pump_windows(), [None] * 12, PROFILE, {"channels": ["a", "b"], "slow": []}, True)


@pytest.mark.parametrize("channels", [CHANNELS, ("a", "b", "c")])
def test_the_public_set_is_the_same_each_time_and_its_parts_do_not_overlap(channels: tuple[str, ...]) -> None:
    parameters = {"channels": list(channels)}
    public, again = RECIPE.public_set(parameters), RECIPE.public_set(parameters)
    assert public.y is not None

    assert np.array_equal(public.x, again.x)
    assert public.x.dtype == np.float32 and public.x.shape[1:] == (16, len(channels))
    assert not set(public.calibration) & set(public.golden)
    assert {0, 1} == set(public.y[np.setdiff1d(np.arange(len(public.y)), public.calibration)].tolist())


def test_calibration_fills_the_input_range() -> None:
    public = RECIPE.public_set({"clip": 2.0})
    calibration = public.x[public.calibration]

    assert calibration.min() == -2.0 and calibration.max() == 2.0
    assert np.abs(public.x).max() <= 2.0


def test_the_score_is_one_for_a_perfect_copy_and_nought_for_silence() -> None:
    public = RECIPE.public_set({})

    assert RECIPE.score(lambda x: x, public, {})["explained"] == 1.0
    assert RECIPE.score(np.zeros_like, public, {})["explained"] == pytest.approx(0, abs=1e-6)


def test_agreement_falls_with_the_difference() -> None:
    x = np.random.default_rng(0).normal(size=(4, 16, 8)).astype(np.float32)

    assert RECIPE.agreement(x, x) == 1.0
    assert RECIPE.agreement(x, x * np.float32(0.9)) == pytest.approx(0.99, abs=1e-3)
    assert RECIPE.agreement(x, -x) == 0.0


def test_area_under_curve_by_hand() -> None:
    assert area_under_curve(np.array([3.0, 1.0]), np.array([2.0, 0.0])) == 0.75
    assert area_under_curve(np.array([1.0]), np.array([1.0])) == 0.5
    assert area_under_curve(np.array([]), np.array([1.0])) == 0.5
