"""The image classifier as a recipe: of the size it promises, any image shape, private by construction, exportable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.bundles import package_request

from hedgerow.models.export.vector import to_vector
from hedgerow.models.recipe import find_recipe
from hedgerow.models.recipes.image_cnn import PUBLIC, PUBLIC_SEED, RECIPE
from hedgerow.models.synthetic.images import ImageKind, make_images
from hedgerow.models.workbench.modules import Work
from hedgerow.models.workbench.package import package
from hedgerow.shared.bundle import decode_manifest
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.features import image_transform
from hedgerow.shared.job import GateSpec

SMALL = {"height": 12, "width": 16, "channels": 3, "classes": 4, "filters": 2, "dense": 8}


def test_it_is_installed_and_has_the_promised_number_of_parameters() -> None:
    assert find_recipe("image-cnn") is RECIPE
    assert sum(p.numel() for p in RECIPE.build({}).parameters()) == 55_338


def test_any_image_shape_gives_one_logit_a_class() -> None:
    module = RECIPE.build(SMALL)
    public = RECIPE.public_set(SMALL)

    assert public.x.shape == (PUBLIC, 12, 16, 3)
    assert public.x.dtype == np.float32
    assert tuple(module(torch.from_numpy(public.x[:5])).shape) == (5, 4)
    assert RECIPE.output_spec(SMALL).shape == (4,)
    assert RECIPE.labels(SMALL) == ("0", "1", "2", "3")


def test_the_channels_of_a_colour_image_are_not_mixed_up() -> None:
    """The first convolution against numpy: each filter's centre tap reads its own channel."""
    module = RECIPE.build(SMALL)
    first = next(m for m in module.modules() if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        first.weight.zero_()
        first.bias.zero_()  # type: ignore[union-attr]
        first.weight[0, 2, 1, 1] = 1.0
    x = np.random.default_rng(0).random((2, 12, 16, 3), np.float32)
    seen: list[torch.Tensor] = []
    first.register_forward_hook(lambda _module, _input, output: seen.append(output))

    module(torch.from_numpy(x))

    np.testing.assert_array_equal(seen[0][:, 0].detach().numpy(), x[..., 2])


def test_pooling_before_relu_is_the_same_function_and_gradient() -> None:
    module = RECIPE.build(SMALL)
    layers = list(module)  # type: ignore[call-overload]
    order = [0, 1, 3, 2, 4, 6, 5, *range(7, len(layers))]
    swapped = torch.nn.Sequential(*[layers[n] for n in order])
    x, y = torch.from_numpy(RECIPE.public_set(SMALL).x[:32]), torch.arange(32) % 4

    gradients = []
    for one in (module, swapped):
        one.zero_grad()
        RECIPE.loss(one, x, y).mean().backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])

    assert torch.equal(module(x), swapped(x))
    assert isinstance(layers[2], torch.nn.MaxPool2d)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_training_and_serving_make_the_same_input() -> None:
    images = make_images(ImageKind(), 20, 0).pixels
    made = RECIPE.training_set(images, [0] * 20, None, {}, True)

    assert np.array_equal(made.x, image_transform(RECIPE.feature_set({}))(images))
    assert made.x.max() <= 1.0
    assert (
        len({made.x[:3].tobytes(), RECIPE.training_set(images[:3], [0] * 3, None, {}, True).x.tobytes()}) == 1
    )


def test_what_cannot_be_trained_on_is_refused() -> None:
    images = np.zeros((3, 28, 28, 1), np.uint8)

    assert len(RECIPE.training_set(list(images), [1, None, 2], None, {}, False).x) == 2
    with pytest.raises(ContentError, match="no labelled"):
        RECIPE.training_set(images, [None] * 3, None, {}, False)
    with pytest.raises(ContentError, match="0 to 9"):
        RECIPE.training_set(images, [1, 2, 10], None, {}, False)
    with pytest.raises(ContentError, match="0 to 9"):
        RECIPE.training_set(images, [1, 2, -1], None, {}, False)
    with pytest.raises(ContentError, match="uint8"):
        RECIPE.training_set(images.astype(np.float32), [1, 2, 3], None, {}, False)
    with pytest.raises(ContentError, match="28"):
        RECIPE.training_set(images[:, :14], [1, 2, 3], None, {}, False)
    with pytest.raises(ContentError, match="2 labels"):
        RECIPE.training_set(images, [1, 2], None, {}, False)
    with pytest.raises(ContentError, match="labels"):
        RECIPE.loss(RECIPE.build({}), torch.rand(2, 28, 28, 1), None)


@pytest.mark.parametrize("bad", [{"filtres": 3}, {"height": 4}, {"classes": 1}, {"channels": "three"}])
def test_parameters_that_make_no_sense_are_refused_by_name(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"image-cnn.*{next(iter(bad))}"):
        RECIPE.check(dict(bad))


def test_the_public_set_is_the_same_every_time_and_not_a_devices() -> None:
    public, again = RECIPE.public_set({}), RECIPE.public_set({})
    device = make_images(ImageKind(), PUBLIC, 0)
    set_aside = np.concatenate([public.calibration, public.golden])

    assert np.array_equal(public.x, again.x)
    assert public.y is not None
    assert PUBLIC_SEED > 0
    assert not np.array_equal(public.x, device.pixels.astype(np.float32) / 255)
    assert len(np.unique(set_aside)) == len(set_aside)
    assert np.bincount(public.y, minlength=10).min() > PUBLIC / 10 / 2


def test_the_score_is_the_accuracy_on_the_rest() -> None:
    public = RECIPE.public_set({})
    assert public.y is not None
    known = {x.tobytes(): y for x, y in zip(public.x, public.y, strict=True)}

    def half_right(x: np.ndarray) -> np.ndarray:
        truth = np.array([known[image.tobytes()] for image in x])
        return np.eye(10, dtype=np.float32)[np.where(np.arange(len(x)) % 2 == 0, truth, (truth + 1) % 10)]

    rest = len(public.x) - len(public.calibration) - len(public.golden)
    assert RECIPE.score(half_right, public, {})["accuracy"] == ((rest + 1) // 2) / rest


def test_agreement_counts_equal_classes() -> None:
    one = np.eye(3, dtype=np.float32)
    assert RECIPE.agreement(one, one) == 1.0
    assert RECIPE.agreement(one, one[[0, 1, 0]]) == pytest.approx(2 / 3)
    assert RECIPE.scoring({}) is None


@pytest.mark.parametrize("parameters", [{}, SMALL], ids=["one-channel", "colour"])
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
    manifest = decode_manifest((tmp_path / "b" / "manifest.json").read_bytes())
    assert manifest.channels == (), "the number of an image's channels names no telemetry channel"
