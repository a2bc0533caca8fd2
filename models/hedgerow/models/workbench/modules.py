"""Recipes at work: a recipe with checked parameters, its module and its public set, kept between requests."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from hedgerow.models.export.vector import decode_vector, load_vector
from hedgerow.models.recipe import Parameters, PublicSet, Recipe, find_recipe
from hedgerow.shared.errors import ContentError

Floats = npt.NDArray[np.float32]

_KEPT = 4
_BATCH = 512


class Work:
    """One recipe with one set of parameters."""

    def __init__(self, recipe: Recipe, parameters: Parameters) -> None:
        self.recipe = recipe
        self.parameters = recipe.check(parameters)
        self.module = recipe.build(self.parameters).eval()
        self._public: PublicSet | None = None

    @property
    def public(self) -> PublicSet:
        """The recipe's public set, made once. Raises ContentError if it does not fit the recipe's input."""
        if self._public is None:
            found = self.recipe.public_set(self.parameters)
            wanted = self.recipe.input_spec(self.parameters).shape
            if found.x.dtype != np.float32 or found.x.shape[1:] != wanted or not len(found.golden):
                raise ContentError(
                    f"recipe {self.recipe.name}: its public set is {found.x.dtype} {found.x.shape} with "
                    f"{len(found.golden)} golden samples; expected float32 (n, {', '.join(map(str, wanted))}) and some"
                )
            self._public = found
        return self._public

    def load(self, model: bytes) -> None:
        """Put a flat vector into the module. Raises ContentError as ``load_vector``."""
        load_vector(self.module, decode_vector(model))

    def predict(self, x: Floats) -> Floats:
        """Return the module's outputs for ``(n, *input)``."""
        with torch.inference_mode():
            parts = [
                self.module(torch.from_numpy(x[n : n + _BATCH])).numpy() for n in range(0, len(x), _BATCH)
            ]
        result: Floats = np.concatenate(parts)
        return result


class Works:
    """The last few recipes that were asked for."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Work] = OrderedDict()

    def get(self, recipe: str, parameters: dict[str, Any]) -> Work:
        """Return the recipe at work. Raises ConfigError if it is not installed or refuses the parameters."""
        key = msgspec.msgpack.encode((recipe, parameters), order="sorted")
        if key not in self._kept:
            self._kept[key] = Work(find_recipe(recipe), parameters)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
