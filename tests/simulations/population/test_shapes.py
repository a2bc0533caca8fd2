"""What a source has, fitted to what a recipe's devices store: the same brightness, or a refusal that says what to set."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import numpy as np
import pytest

from hedgerow.models.recipe import find_recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.population.pool import Request
from hedgerow.simulations.population.sources.catalogue import SOURCES, options_of, source_of
from hedgerow.simulations.population.sources.held import standardised
from hedgerow.simulations.population.sources.shapes import check_labels, fit_images, fit_vectors
from hedgerow.simulations.scenario.spec import PopulationSpec, SourceName

BRIGHT = np.random.default_rng(0).integers(17, size=(5, 8, 8, 1)).astype(np.uint8)


def request(recipe: str, **parameters: Any) -> Request:
    found = find_recipe(recipe)
    return Request(found, found.check(parameters), 4, 0, "s.toml", None)


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [("digits-cnn", {}), ("image-cnn", {"height": 8, "width": 8}), ("mlp", {})],
)
def test_every_recipe_sees_the_same_brightness(recipe: str, parameters: dict[str, Any]) -> None:
    asked = request(recipe, **parameters)
    samples = fit_images(BRIGHT, 16, asked)
    made = asked.recipe.training_set(samples, [0] * 5, None, asked.parameters, False)

    asked.spec.check(samples)
    np.testing.assert_allclose(made.x.ravel(), BRIGHT.ravel() / 16, atol=0.5 / 255)


def test_bytes_of_the_recipes_own_brightness_are_not_touched() -> None:
    assert fit_images(BRIGHT, 16, request("digits-cnn")) is BRIGHT


@pytest.mark.parametrize(
    ("recipe", "parameters", "why"),
    [
        (
            "image-cnn",
            {},
            "8 by 8 by 1, the recipe takes 28 by 28 by 1: set height, width and channels in job.param",
        ),
        ("mlp", {"inputs": 63}, "8 by 8 by 1, the recipe takes 63: set inputs in job.parameters"),
        ("anomaly-autoencoder", {}, "gives images; recipe 'anomaly-autoencoder' takes window data"),
    ],
)
def test_images_that_do_not_fit_say_what_to_set(recipe: str, parameters: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"s\.toml: population\.source: .*{why}"):
        fit_images(BRIGHT, 16, request(recipe, **parameters))


def test_vectors_go_to_vector_recipes_alone() -> None:
    x = np.random.default_rng(0).random((4, 5))[:, ::-1]
    fitted = fit_vectors(x.astype(np.float32), request("mlp", inputs=5))

    assert fitted.flags.c_contiguous
    np.testing.assert_allclose(fitted, x, rtol=1e-6)
    with pytest.raises(ConfigError, match="examples of 5, the recipe takes 64: set inputs"):
        fit_vectors(x.astype(np.float32), request("mlp"))
    with pytest.raises(ConfigError, match="gives vectors; recipe 'image-cnn' takes image data"):
        fit_vectors(x.astype(np.float32), request("image-cnn"))


def test_labels_must_be_classes_of_the_recipe() -> None:
    ten = np.arange(10)

    assert check_labels(ten, request("mlp")) is ten
    with pytest.raises(
        ConfigError, match=r"labels from 0 to 9; the recipe has 9 classes: set job\.parameters\.classes"
    ):
        check_labels(ten, request("mlp", classes=9))
    with pytest.raises(ConfigError, match="labels from -1 to 8"):
        check_labels(ten - 1, request("mlp"))
    with pytest.raises(ConfigError, match="takes no classes"):
        check_labels(ten, request("anomaly-autoencoder"))


def test_standardised_columns_lie_about_a_half_and_constants_on_it() -> None:
    made = standardised(np.stack([np.arange(9.0) * 1e6, np.full(9, 3.0)], axis=1))

    assert made[:, 0].mean() == pytest.approx(0.5)
    assert made[:, 0].std() == pytest.approx(0.25)
    assert made[:, 1].tolist() == [0.5] * 9


@pytest.mark.parametrize("name", get_args(SourceName))
def test_every_source_that_a_scenario_may_name_is_there(name: SourceName) -> None:
    source = source_of(name)

    assert set(SOURCES) == set(get_args(SourceName))
    assert callable(source.read)
    assert issubclass(source.Options, msgspec.Struct)
    assert isinstance(options_of(PopulationSpec(devices=1, source=name), "s.toml"), source.Options)


@pytest.mark.parametrize("name", get_args(SourceName))
def test_an_option_that_a_source_lacks_is_refused_with_its_name(name: SourceName) -> None:
    spec = PopulationSpec(devices=1, source=name, options={"sampels": 3})

    with pytest.raises(ConfigError, match=rf"s\.toml: population\.options: unknown key sampels.*'{name}'"):
        options_of(spec, "s.toml")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pump", {"windows": 0}),
        ("synthetic-images", {"samples": 0}),
        ("synthetic-images", {"noise": -0.1}),
        ("synthetic-vectors", {"groups": 0}),
        ("csv", {"separator": ";;"}),
        ("csv", {"held_out": 1.0}),
        ("idx", {"held_out": 0.0}),
        ("images", {"layout": "flat"}),
        ("npz", {"white": 0}),
        ("sklearn", {"set": "boston"}),
    ],
)
def test_options_out_of_range_are_refused_by_key(name: SourceName, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"population\.options: .*{next(iter(options))}"):
        options_of(PopulationSpec(devices=1, source=name, options=options), "s.toml")
