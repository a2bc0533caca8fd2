"""A recipe small enough to check by hand: one linear layer, squared error, samples of three numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from hedgerow.models.recipe import Floats, GateDefaults, PublicSet, TrainingSet
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.specs import TensorSpec

WIDTH = 3


class TinyRecipe:
    """``y`` is the sample's sum; labels are ignored."""

    name = "tiny"
    version = "1"
    task: Literal["anomaly", "classification"] = "anomaly"
    metric = "error"
    higher_is_better = False
    gate = GateDefaults(0.9, 0.1, 1e6, 1 << 20)

    def check(self, parameters: dict[str, Any]) -> dict[str, Any]:
        if set(parameters) - {"layer", "copies"}:
            raise ConfigError(f"tiny: unknown keys in {parameters}")
        return {"layer": "linear", "copies": 1, **parameters}

    def input_spec(self, parameters: dict[str, Any]) -> TensorSpec:
        return TensorSpec("tiny", "float32", (WIDTH,), "scores")

    def output_spec(self, parameters: dict[str, Any]) -> TensorSpec:
        return TensorSpec("out", "float32", (1,), "scores")

    def feature_set(self, parameters: dict[str, Any]) -> str:
        return "tiny-v1"

    def build(self, parameters: dict[str, Any]) -> torch.nn.Module:
        torch.manual_seed(3)
        if parameters.get("layer") == "norm":
            return torch.nn.Sequential(
                torch.nn.Linear(WIDTH, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
            )
        if parameters.get("layer") == "convolution":
            return torch.nn.Sequential(
                torch.nn.Unflatten(1, (1, WIDTH)),
                torch.nn.Conv1d(1, 2, 2),
                torch.nn.Flatten(),
                torch.nn.Linear(4, 1),
            )
        if parameters.get("layer") == "wide":
            return torch.nn.Linear(WIDTH, 10_000)
        if parameters.get("layer") == "empty":
            return torch.nn.Identity()
        return torch.nn.Linear(WIDTH, 1)

    def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        losses: torch.Tensor = (module(x).sum(dim=1) - x.sum(dim=1)).square()
        return losses

    def training_set(
        self,
        samples: Any,
        labels: Sequence[int | None],
        profile: Any,
        parameters: dict[str, Any],
        private: bool,
    ) -> TrainingSet:
        copies = int(parameters.get("copies", 1))
        return TrainingSet(np.concatenate([np.asarray(samples, np.float32)] * copies), None)

    def public_set(self, parameters: dict[str, Any]) -> PublicSet:
        none = np.zeros(0, np.int64)
        return PublicSet(np.eye(WIDTH, dtype=np.float32), None, none, none)

    def score(self, predict: Any, public: PublicSet, parameters: dict[str, Any]) -> dict[str, float]:
        return {"error": float(np.abs(predict(public.x)[:, 0] - public.x.sum(axis=1)).mean())}

    def agreement(self, reference: Floats, candidate: Floats) -> float:
        return 1.0

    def scoring(self, parameters: dict[str, Any]) -> None:
        return None

    def labels(self, parameters: dict[str, Any]) -> tuple[str, ...]:
        return ()


RECIPE = TinyRecipe()


def examples(n: int, seed: int = 0) -> Floats:
    """Return ``n`` samples, float32 ``(n, 3)``."""
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)
