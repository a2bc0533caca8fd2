from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from tests.support.nets import to_tflite, torch_answers
from torch import nn

from hedgerow.models.export.onnx_export import export_onnx
from hedgerow.models.gate.measure import measure
from hedgerow.models.recipe import Parameters, PublicSet, Recipe
from hedgerow.shared.bundle import Runtime


class Recording:
    """Stands in for a recipe where only its two judgements matter: it keeps what it was asked to judge."""

    def __init__(self) -> None:
        self.judged = 0

    def agreement(self, reference: np.ndarray, candidate: np.ndarray) -> float:
        self.judged = len(reference)
        return float(np.isclose(reference, candidate, atol=1e-4).mean())

    def score(self, predict: object, public: PublicSet, parameters: Parameters) -> dict[str, float]:
        return {"sum": float(predict(public.x).sum())}  # type: ignore[operator]


def public(n: int = 20) -> PublicSet:
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    return PublicSet(x, None, np.arange(4, 10), np.arange(4))


def model(engine: Runtime, module: nn.Module) -> bytes:
    return export_onnx(module, (3,)) if engine == "onnxruntime" else to_tflite(module, (3,))


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_a_faithful_artefact_measures_as_such(engine: Runtime) -> None:
    torch.manual_seed(0)
    module, data, recipe = nn.Linear(3, 2), public(), Recording()
    artefact = model(engine, module)

    found = measure(
        engine, "float32", artefact, cast("Recipe", recipe), {}, data, torch_answers(module, data.x)
    )

    assert found.agreement == 1.0
    assert recipe.judged == 10, "neither golden nor calibration samples count"
    assert found.error < 1e-5
    assert found.golden_error < 1e-5
    assert found.non_finite == 0
    assert found.size_bytes == len(artefact)
    assert 0 < found.latency_p50_us <= found.latency_p99_us
    assert found.scores["sum"] == pytest.approx(float(torch_answers(module, data.x).sum()), rel=1e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_another_model_than_the_reference_shows(engine: Runtime) -> None:
    torch.manual_seed(0)
    module, other, data = nn.Linear(3, 2), nn.Linear(3, 2), public()

    found = measure(
        engine,
        "float32",
        model(engine, other),
        cast("Recipe", Recording()),
        {},
        data,
        torch_answers(module, data.x),
    )

    assert found.agreement < 0.5
    assert found.error > 0.01
    assert found.golden_error > 0.01


class Exploding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1e30 * 1e30


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_non_finite_outputs_are_counted_and_nothing_else_is_believed(engine: Runtime) -> None:
    data = public()

    found = measure(
        engine,
        "float32",
        model(engine, Exploding()),
        cast("Recipe", Recording()),
        {},
        data,
        np.zeros_like(data.x),
    )

    assert found.non_finite == 14 * 3
    assert found.agreement == 0.0
    assert found.scores == {}
