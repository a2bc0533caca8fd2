"""Aggregation algorithms as pure functions: ``init`` makes the state, ``apply`` one step.

FedAvg (McMahan et al. 2017, algorithm 1) with a server learning rate: model + rate · mean of the updates. FedProx
(Li et al. 2020, algorithm 2) is the same on the server; its proximal term acts on the device. FedAvgM (Hsu et al. 2019,
section 4.2), FedAdam and FedYogi (Reddi et al. 2021, algorithm 2) take the mean as a gradient; what they remember are
float32 vectors in the state. With a central privacy mechanism the mean is the noisy one, and all this is post-processing.

In mode ``example`` the mean is uniform over the updates that came, because sample counts are withheld. That is sound:
each update is already (ε, δ)-private for its device's own examples, the devices' examples are disjoint, and the mean
depends on the data through the updates alone, so that it is post-processing (Dwork & Roth 2014, proposition 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hedgerow.shared.errors import IntegrityError
from hedgerow.shared.job import StrategySpec
from hedgerow.shared.packing import Vector

_STEP = 65536
Sum = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]


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


def fedavgm(server_learning_rate: float = 1.0, server_momentum: float = 0.9) -> Algorithm:
    """Return FedAvgM: v ← β·v + mean, model + rate · v, with v = 0 at first.

    Without any update (weight 0) model and v stay.
    """

    def step(memory: list[Floats], mean: Floats) -> Floats:
        (v,) = memory
        v *= server_momentum
        v += mean
        return server_learning_rate * v

    return _remembering(step, first=(0.0,))


def fedadam(
    server_learning_rate: float = 1.0, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 1e-3
) -> Algorithm:
    """Return FedAdam: m ← β₁·m + (1−β₁)·mean, v ← β₂·v + (1−β₂)·mean², model + rate · m / (√v + τ).

    m = 0 and v = τ² at first, and no bias correction, as in the paper. Without any update (weight 0) all stays.
    """

    def second(v: Floats, square: Floats) -> None:
        v *= beta_2
        v += (1 - beta_2) * square

    return _adaptive(server_learning_rate, beta_1, tau, second)


def fedyogi(
    server_learning_rate: float = 1.0, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 1e-3
) -> Algorithm:
    """Return FedYogi: as FedAdam, but v ← v − (1−β₂)·mean²·sign(v − mean²)."""

    def second(v: Floats, square: Floats) -> None:
        v -= (1 - beta_2) * square * np.sign(v - square)

    return _adaptive(server_learning_rate, beta_1, tau, second)


def algorithm_for(spec: StrategySpec) -> Algorithm:
    """Return the algorithm that ``spec`` names, with its options. Raises KeyError for a name that is not ours."""
    make, options = _OWN[spec.name]
    return make(
        spec.server_learning_rate, **{name: spec.options[name] for name in options & spec.options.keys()}
    )


_OWN: dict[str, tuple[Callable[..., Algorithm], frozenset[str]]] = {
    "fedavg": (fedavg, frozenset()),
    "fedprox": (fedavg, frozenset()),
    "fedavgm": (fedavgm, frozenset({"server_momentum"})),
    "fedadam": (fedadam, frozenset({"beta_1", "beta_2", "tau"})),
    "fedyogi": (fedyogi, frozenset({"beta_1", "beta_2", "tau"})),
}


def _adaptive(rate: float, beta_1: float, tau: float, second: Callable[[Floats, Floats], None]) -> Algorithm:
    def step(memory: list[Floats], mean: Floats) -> Floats:
        """Return the step of one block, by Reddi et al. 2021, Algorithm 2."""
        m, v = memory
        m *= beta_1
        m += (1 - beta_1) * mean
        second(v, np.square(mean))
        return rate * m / (np.sqrt(v) + tau)

    return _remembering(step, first=(0.0, tau * tau))


def _remembering(step: Callable[[list[Floats], Floats], Floats], first: tuple[float, ...]) -> Algorithm:
    """Return an algorithm with one float32 vector of memory per value in ``first``, one after the other in its state.

    ``step(memory, mean)`` changes the memory of one block, in float64, and returns the model's step. An empty state is
    the first one: no checkpoint of constants.
    """

    def apply(state: bytes, model: Vector, total: Sum, weight: float) -> tuple[bytes, Vector]:
        """Return memory and model after the mean of ``total``; both as they were where nothing came."""
        if weight <= 0:
            return state, model.copy()
        after, out = _memory(state, model.size, first), np.empty_like(model)
        for at in range(0, model.size, _STEP):
            part = slice(at, at + _STEP)
            memory = [vector[part].astype(np.float64) for vector in after]
            out[part] = model[part] + step(memory, total[part].astype(np.float64) / weight)
            for vector, block in zip(after, memory, strict=True):
                vector[part] = block
        return b"".join(vector.tobytes() for vector in after), out

    return Algorithm(lambda _n: b"", apply)


def _memory(state: bytes, n: int, first: tuple[float, ...]) -> list[Vector]:
    if not state:
        return [np.full(n, value, "<f4") for value in first]
    if len(state) != 4 * n * len(first):
        raise IntegrityError(
            f"{len(state)} bytes of strategy state where {len(first)} · {n} float32 values belong"
        )
    return [vector.copy() for vector in np.frombuffer(state, "<f4").reshape(len(first), n)]


def _step(model: Vector, total: Sum, factor: float) -> Vector:
    """Return ``model + factor · total``, reckoned in the sum's precision, with one block of scratch."""
    out = np.empty_like(model)
    for at in range(0, model.size, _STEP):
        block = total[at : at + _STEP] * np.asarray(factor, total.dtype)
        block += model[at : at + _STEP]
        out[at : at + _STEP] = block
    return out
