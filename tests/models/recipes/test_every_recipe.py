"""What the server, the trainer and the device expect of any recipe, asked of each one that is installed."""

from __future__ import annotations

import inspect
import json
import math
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.models.export.vector import n_parameters, to_vector
from hedgerow.models.recipe import Recipe, find_recipe, recipe_hash
from hedgerow.shared.errors import ConfigError, HedgerowError

NAMES = sorted(entry.name for entry in entry_points(group="hedgerow.recipes"))
SMALL: dict[str, dict[str, Any]] = {
    "anomaly-autoencoder": {"rows": 4, "hidden": 5, "code": 2},
    "digits-cnn": {"filters": 2, "width": 4},
    "image-cnn": {"height": 8, "width": 8, "filters": 2, "dense": 3, "classes": 3},
    "mlp": {"inputs": 6, "hidden": [3], "classes": 3},
}


@pytest.fixture(params=NAMES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return find_recipe(request.param)


def small(recipe: Recipe) -> dict[str, Any]:
    return recipe.check(SMALL[recipe.name])


def inputs_of(recipe: Recipe, n: int = 3) -> torch.Tensor:
    shape = recipe.input_spec(small(recipe)).shape
    return torch.from_numpy(np.random.default_rng(1).random((n, *shape)).astype(np.float32))


def test_every_recipe_has_its_small_form_here() -> None:
    assert set(SMALL) == set(NAMES)


def test_defaults_are_filled_in_once_and_are_plain_json(recipe: Recipe) -> None:
    for given_parameters in ({}, SMALL[recipe.name]):
        checked = recipe.check(given_parameters)
        assert recipe.check(checked) == checked
        assert json.loads(json.dumps(checked, allow_nan=False)) == checked
        assert set(given_parameters) <= set(checked)


@pytest.mark.parametrize("key", ["", "Rows", "rows ", "__class__", "unknown"])
def test_an_unknown_parameter_is_named_with_those_there_are(recipe: Recipe, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe.check({key: 1})

    assert str(caught.value).startswith(f"recipe {recipe.name}: unknown parameter {key}; there are ")
    for known in recipe.check({}):
        assert known in str(caught.value)


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, math.nan, 10**30, -1, None, {}, [[]], "\x00", b"x"], ids=repr
)
def test_each_parameter_refuses_what_it_cannot_be_by_its_name_or_gives_plain_json(
    recipe: Recipe, value: Any
) -> None:
    for key in recipe.check({}):
        try:
            checked = recipe.check({key: value})
        except ConfigError as error:
            assert str(error).startswith(f"recipe {recipe.name}: ")  # both ways are right
            assert key in str(error)
        else:
            assert recipe.check(json.loads(json.dumps(checked, allow_nan=False))) == checked


@settings(max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.dictionaries(
        st.sampled_from(["rows", "channels", "hidden", "code", "width", "height", "classes", "inputs", "clip", "slow"]),
        st.none() | st.booleans() | st.integers(-3, 5000) | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=3),
        max_size=3,
    ),
)  # fmt: skip
def test_no_table_raises_anything_but_a_config_error(name: str, table: dict[str, Any]) -> None:
    recipe = find_recipe(name)
    try:
        checked = recipe.check(table)
        recipe.input_spec(checked)
        recipe.output_spec(checked)
    except (HedgerowError, ValueError) as error:
        assert str(error)


def test_the_module_maps_the_input_spec_to_the_output_spec_for_any_batch(recipe: Recipe) -> None:
    parameters = small(recipe)
    module = recipe.build(parameters).eval()
    for n in (1, 2, 5):
        with torch.inference_mode():
            out = module(inputs_of(recipe, n))
        assert tuple(out.shape) == (n, *recipe.output_spec(parameters).shape)
        assert torch.isfinite(out).all()


def test_samples_of_a_batch_do_not_touch_each_other(recipe: Recipe) -> None:
    """Per-example gradients, and with them the privacy claim, rest on it."""
    module = recipe.build(small(recipe)).eval()
    x = inputs_of(recipe, 4)
    with torch.inference_mode():
        together = module(x)
        alone = torch.cat([module(x[n : n + 1]) for n in range(4)])

    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def labels_of(recipe: Recipe, n: int) -> torch.Tensor | None:
    return torch.arange(n) % 3 if recipe.task == "classification" else None


def test_the_loss_is_one_finite_number_a_sample_and_of_that_sample_alone(recipe: Recipe) -> None:
    module, x, y = recipe.build(small(recipe)).eval(), inputs_of(recipe, 4), labels_of(recipe, 4)
    together = recipe.loss(module, x, y)
    alone = torch.cat(
        [recipe.loss(module, x[n : n + 1], None if y is None else y[n : n + 1]) for n in range(4)]
    )

    assert tuple(together.shape) == (4,)
    assert (together >= 0).all()
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_loss_is_the_slope_of_the_loss(recipe: Recipe) -> None:
    """Against central differences, along one random direction, in float64."""
    torch.manual_seed(3)
    module = recipe.build(small(recipe)).double().eval()
    x, y = inputs_of(recipe, 3).double(), labels_of(recipe, 3)
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(recipe.loss(module, x, y).sum(), parameters)
    direction = [torch.randn_like(p) for p in parameters]
    wanted = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))

    def moved(step: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=step)
            value = float(recipe.loss(module, x, y).sum())
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=-step)
        return value

    assert (moved(1e-6) - moved(-1e-6)) / 2e-6 == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_every_parameter_of_the_module_learns(recipe: Recipe) -> None:
    torch.manual_seed(0)
    module = recipe.build(recipe.check({}))
    shape = recipe.input_spec(recipe.check({})).shape
    x = torch.from_numpy(np.random.default_rng(0).random((16, *shape)).astype(np.float32))
    recipe.loss(module, x, labels_of(recipe, 16)).sum().backward()  # type: ignore[no-untyped-call]

    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_module_holds_nothing_that_the_flat_vector_leaves_out(recipe: Recipe) -> None:
    """Buffers (the running means of a norm layer, say) would stay behind on each device."""
    module = recipe.build(small(recipe))

    assert list(module.buffers()) == []
    assert to_vector(module).size == n_parameters(module)


def test_a_seed_makes_the_same_module_and_another_seed_another(recipe: Recipe) -> None:
    made = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        made.append(to_vector(recipe.build(small(recipe))))

    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_agreement_is_a_share_and_a_model_agrees_with_itself(recipe: Recipe) -> None:
    shape = recipe.output_spec(small(recipe)).shape
    rng = np.random.default_rng(2)
    reference, other = (rng.normal(size=(20, *shape)).astype(np.float32) for _ in range(2))

    assert recipe.agreement(reference, reference) == 1
    assert 0 <= recipe.agreement(reference, other) <= 1


def test_a_recipe_s_hash_is_one_and_its_own() -> None:
    hashes = {name: recipe_hash(find_recipe(name)) for name in NAMES}

    assert hashes == {name: recipe_hash(find_recipe(name)) for name in NAMES}
    assert len(set(hashes.values())) == len(NAMES)
    assert all(len(found) == 64 and set(found) <= set("0123456789abcdef") for found in hashes.values())


def test_a_recipe_s_hash_covers_the_code_that_it_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    from hedgerow.models.recipes import classes

    recipe = find_recipe("mlp")
    before, source = recipe_hash(recipe), inspect.getsource

    def altered(module: ModuleType) -> str:
        return source(module) + ("\n" if module is classes else "")

    monkeypatch.setattr(inspect, "getsource", altered)

    assert recipe_hash(recipe) != before


@pytest.mark.parametrize("name", ["", "missing", "../mlp", "mlp\n", "MLP"])
def test_a_recipe_that_is_not_installed_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_recipe(name)

    assert all(installed in str(caught.value) for installed in NAMES)
