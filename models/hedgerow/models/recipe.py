"""What a recipe is: installed code that says how a model is built, trained, scored, exported and judged.

Recipes are found by entry point (``hedgerow.recipes``) and named in jobs. Devices report the name and the hash of the
code they have; a job whose hash differs is refused, and a trainer never runs code that it received.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from hedgerow.shared.bundle import ScoringRule
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.specs import TensorSpec

if TYPE_CHECKING:
    import torch

    from hedgerow.shared.profile import DeviceProfile

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Predict = Callable[[Floats], Floats]
Parameters = dict[str, Any]


@dataclass(frozen=True)
class PublicSet:
    """Public or synthetic data of a recipe: never from a device.

    ``x`` is float32 ``(n, *input)`` as the exported model takes it, ``y`` labels int64 ``(n,)`` or None.
    ``calibration`` are indices used to calibrate int8, ``golden`` those shipped in the bundle; the server's score
    and the gate use the rest.
    """

    x: Floats
    y: npt.NDArray[np.int64] | None
    calibration: npt.NDArray[np.int64]
    golden: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSet:
    """A device's own examples, ready for the loss: ``x`` float32 ``(n, *input)``, ``y`` int64 ``(n,)`` or None."""

    x: Floats
    y: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class GateDefaults:
    """Limits that a recipe asks of its candidates where the job names none."""

    min_agreement: float
    max_metric_drop: float
    max_latency_us: float
    max_artefact_bytes: int


class Recipe(Protocol):
    """One kind of model. Methods taking ``parameters`` get the job's ``parameters`` table, checked by ``check``."""

    name: str
    version: str
    task: Literal["anomaly", "classification"]
    metric: str
    """Name of the score that counts, a key of ``score``'s result."""
    higher_is_better: bool
    gate: GateDefaults

    def check(self, parameters: Parameters) -> Parameters:
        """Return the parameters with defaults filled in. Raises ConfigError naming the key."""

    def input_spec(self, parameters: Parameters) -> TensorSpec:
        """Return what a device stores and the predict API takes (raw samples: a window, an image)."""

    def output_spec(self, parameters: Parameters) -> TensorSpec:
        """Return what the exported model gives for one sample."""

    def feature_set(self, parameters: Parameters) -> str:
        """Return the id of the transform from raw sample to model input; part of the bundle's identity."""

    def build(self, parameters: Parameters) -> torch.nn.Module:
        """Return an untrained module taking float32 ``(n, *model input)``; imports torch.

        The order of ``module.parameters()`` is the order of the flat model vector.
        """

    def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        """Return the loss per example, ``(n,)``."""

    def training_set(
        self,
        samples: Sequence[Array] | Array,
        labels: Sequence[int | None],
        profile: DeviceProfile | None,
        parameters: Parameters,
        private: bool,
    ) -> TrainingSet:
        """Return the device's raw samples ``(n, *input)`` as training examples.

        With ``private`` each example must depend on its own sample and public constants alone (no statistic over the
        other samples), so that the per-example guarantee holds.
        """

    def public_set(self, parameters: Parameters) -> PublicSet:
        """Return the recipe's public or synthetic set; the same for the same parameters."""

    def score(self, predict: Predict, public: PublicSet, parameters: Parameters) -> dict[str, float]:
        """Return named scores of a model on the public set."""

    def agreement(self, reference: Floats, candidate: Floats) -> float:
        """Return in ``[0, 1]`` how far two outputs ``(n, *output)`` for the same inputs mean the same."""

    def scoring(self, parameters: Parameters) -> ScoringRule | None:
        """Return the rule that makes anomaly scores on the device, or None for other tasks."""

    def labels(self, parameters: Parameters) -> tuple[str, ...]:
        """Return class names, empty where there are none."""


def find_recipe(name: str) -> Recipe:
    """Return the installed recipe ``name``. Raises ConfigError naming those that are installed."""
    found = {entry.name: entry for entry in entry_points(group="hedgerow.recipes")}
    if name not in found:
        raise ConfigError(f"no recipe {name!r} is installed; there are {', '.join(sorted(found)) or 'none'}")
    return cast("Recipe", found[name].load())


def recipe_hash(recipe: Recipe) -> str:
    """Return the SHA-256 of the recipe's name, version and the source of the modules that define it and its bases.

    Raises ConfigError if a module has no source.
    """
    modules = {kind.__module__: inspect.getmodule(kind) for kind in type(recipe).__mro__}
    digest = hashlib.sha256(f"{recipe.name}\0{recipe.version}\0".encode())
    for name, module in modules.items():
        if name.partition(".")[0] in sys.stdlib_module_names:
            continue  # not the recipe's, and another with each Python
        if module is None:
            raise ConfigError(f"recipe {recipe.name!r} has no source to hash")
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()
