"""Aggregation algorithms as pure functions: ``init`` makes the state, ``apply`` one step.

FedAvg (McMahan et al. 2017, algorithm 1) with a server learning rate: model + rate · mean of the updates. FedProx
(Li et al. 2020, algorithm 2) is the same on the server; its proximal term acts on the device.

In mode ``example`` the mean is uniform over the updates that came, because sample counts are withheld. That is sound:
each update is already (ε, δ)-private for its device's own examples, the devices' examples are disjoint, and the mean
depends on the data through the updates alone, so that it is post-processing (Dwork & Roth 2014, proposition 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hedgerow.shared.job import StrategySpec
from hedgerow.shared.packing import Vector

_STEP = 65536
Sum = npt.NDArray[np.floating[Any]]


class Algorithm(NamedTuple):
    """A streaming algorithm. ``init(n)`` returns the state; ``apply(state, model, total, weight)`` the next of both.

    ``total`` is the weighted sum of the updates (float32 or float64, ``(n,)``) and ``weight`` the sum of weights.
    ``state`` are bytes that the checkpoint keeps. ``model`` is never changed.
    """

    init: Callable[[int], bytes]
    apply: Callable[[bytes, Vector, Sum, float], tuple[bytes, Vector]]


def fedavg(server_learning_rate: float = 1.0) -> Algorithm:
    """Return FedAvg; it has no state. Without any update (weight 0) the model stays as it is."""

    def init(_n: int) -> bytes:
        return b""

    def apply(state: bytes, model: Vector, total: Sum, weight: float) -> tuple[bytes, Vector]:
        if weight <= 0:
            return state, model.copy()
        return state, _step(model, total, server_learning_rate / weight)

    return Algorithm(init, apply)


def algorithm_for(spec: StrategySpec) -> Algorithm:
    """Return the algorithm that ``spec`` names. Raises KeyError for a name that is not ours."""
    return {"fedavg": fedavg, "fedprox": fedavg}[spec.name](spec.server_learning_rate)


def _step(model: Vector, total: Sum, factor: float) -> Vector:
    """Return ``model + factor · total``, reckoned in the sum's precision, with one block of scratch."""
    out = np.empty_like(model)
    for at in range(0, model.size, _STEP):
        block = total[at : at + _STEP] * np.asarray(factor, total.dtype)
        block += model[at : at + _STEP]
        out[at : at + _STEP] = block
    return out
