"""The vector classifier as a recipe: of the size it promises, digits by default, private by construction, exportable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.bundles import package_request

from hedgerow.models.export.vector import to_vector
from hedgerow.models.recipe import find_recipe
from hedgerow.models.recipes.digits import RECIPE as DIGITS
from hedgerow.models.recipes.mlp import RECIPE
from hedgerow.models.workbench.modules import Work
from hedgerow.models.workbench.package import package
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.features import image_transform
from hedgerow.shared.job import GateSpec

OTHER = {"inputs": 20, "hidden": [16, 8], "classes": 3}


def test_it_is_installed_and_has_the_promised_number_of_parameters() -> None:
    assert find_recipe("mlp") is RECIPE
    assert sum(p.numel() for p in RECIPE.build({}).parameters()) == 64 * 32 + 32 + 32 * 10 + 10 == 2410


@pytest.mark.parametrize("hidden", [[], [16, 8]])
def test_any_depth_gives_one_logit_a_class(hidden: list[int]) -> None:
    parameters = OTHER | {"hidden": hidden}
    module = RECIPE.build(parameters)
    linear = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]

    assert tuple(module(torch.rand(5, 20)).shape) == (5, 3)
    assert [m.out_features for m in linear] == [*hidden, 3]
    assert RECIPE.labels(parameters) == ("0", "1", "2")


def test_by_default_the_public_set_is_the_public_digits() -> None:
    public, digits = RECIPE.public_set({}), DIGITS.public_set({})

    assert np.array_equal(public.x, digits.x.reshape(-1, 64))
    assert public.y is not None
    assert digits.y is not None
    assert np.array_equal(public.y, digits.y)


def test_for_other_sizes_the_public_set_is_synthetic_and_stays_the_same() -> None:
    public, again = RECIPE.public_set(OTHER), RECIPE.public_set(OTHER)
    set_aside = np.concatenate([public.calibration, public.golden])

    assert public.x.shape[1:] == (20,)
    assert public.x.dtype == np.float32
    assert np.array_equal(public.x, again.x)
    assert public.y is not None
    assert set(public.y) == {0, 1, 2}
    assert len(np.unique(set_aside)) == len(set_aside)


def test_training_and_serving_make_the_same_input() -> None:
    vectors = np.random.default_rng(0).random((20, 64), np.float32)
    made = RECIPE.training_set(vectors, [0] * 20, None, {}, True).x

    assert np.array_equal(made, image_transform(RECIPE.feature_set({}))(vectors))


def test_what_cannot_be_trained_on_is_refused() -> None:
    vectors = np.zeros((3, 64), np.float32)

    assert len(RECIPE.training_set(list(vectors), [1, None, 2], None, {}, False).x) == 2
    with pytest.raises(ContentError, match="no labelled"):
        RECIPE.training_set(vectors, [None] * 3, None, {}, False)
    with pytest.raises(ContentError, match="0 to 9"):
        RECIPE.training_set(vectors, [1, 2, 10], None, {}, False)
    with pytest.raises(ContentError, match="64"):
        RECIPE.training_set(vectors[:, :9], [1, 2, 3], None, {}, False)
    with pytest.raises(ContentError, match="not finite"):
        RECIPE.training_set(vectors + np.float32("nan"), [1, 2, 3], None, {}, False)
    with pytest.raises(ContentError, match="labels"):
        RECIPE.loss(RECIPE.build({}), torch.rand(2, 64), None)


def test_the_loss_is_per_vector() -> None:
    module, x, y = RECIPE.build({}), torch.rand(6, 64), torch.arange(6)
    together = RECIPE.loss(module, x, y)

    logits = module(x).detach().double().numpy()
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), np.arange(6)]
    np.testing.assert_allclose(together.detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [{"width": 3}, {"hidden": [0]}, {"classes": 1}, {"inputs": 0}])
def test_parameters_that_make_no_sense_are_refused_by_name(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"mlp.*{next(iter(bad))}"):
        RECIPE.check(dict(bad))


def test_checked_parameters_are_plain_and_complete() -> None:
    assert RECIPE.check({"classes": 3}) == {"inputs": 64, "hidden": [32], "classes": 3}


@pytest.mark.parametrize("parameters", [{}, OTHER], ids=["digits", "synthetic"])
def test_it_exports_and_quantises_to_all_four_artefacts(
    tmp_path: Path, parameters: dict[str, object]
) -> None:
    torch.manual_seed(0)
    work = Work(RECIPE, dict(parameters))
    # untrained logits lie so close together that int8 may tip the answer; parity of floats is still checked
    undecided = GateSpec(min_agreement=0.3, max_metric_drop=0.3)
    model = to_vector(work.module).tobytes()
    request = package_request(RECIPE.name, model, tmp_path / "b", gate=undecided, parameters=work.parameters)

    result = package(request, work)

    assert result.accepted, result.refusals
    for runtime in ("onnxruntime", "litert"):
        for precision in ("float32", "int8"):
            assert f"{runtime}.{precision}.accuracy" in result.scores
