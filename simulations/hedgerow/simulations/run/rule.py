"""How a round's sum becomes the next model: the server's own code, and what only a simulation offers."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hedgerow.server.aggregation.aggregator import Update
from hedgerow.server.aggregation.algorithm import Algorithm, algorithm_for, fedavg
from hedgerow.server.strategies.catalogue import PREFIX
from hedgerow.shared.job import Job
from hedgerow.shared.packing import Vector
from hedgerow.simulations.engine.protocol import Answer
from hedgerow.simulations.run.setting import Setting

Doubles = npt.NDArray[np.float64]
SIMULATED_ONLY = ("fedbuff", "fedper", "scaffold")
AVERAGING = ("fedavg", "fedprox")
_BLOCK = 1 << 16


class Gathered(NamedTuple):
    """What a round came to. ``total`` float64 ``(n,)`` and ``weight`` have passed the privacy mechanism."""

    round: int
    total: Doubles
    weight: float
    answer: Answer
    weights: dict[int, float]


class Rule(Protocol):
    """One strategy on the server. Its state are bytes that the checkpoint keeps."""

    want: Literal["sum", "each"]

    def initial(self) -> bytes:
        """Return the state before the first round."""

    def control(self, state: bytes) -> Vector | None:
        """Return what goes to the devices beside the model."""

    def release(self, state: bytes, model: Vector, gathered: Gathered) -> tuple[bytes, Vector]:
        """Return state and model after the round; ``model`` is left as it is, ``gathered.total`` may be written over.

        Raises AggregationError if these updates do not suffice.
        """


class AveragingRule:
    """The server's FedAvg over a sum. The last ``personal`` values of the model never move."""

    want: Literal["sum", "each"] = "sum"

    def __init__(self, server_learning_rate: float, personal: int = 0) -> None:
        self._average = fedavg(server_learning_rate)
        self._personal = personal

    def initial(self) -> bytes:
        """Return no state."""
        return b""

    def control(self, state: bytes) -> None:
        """Return nothing: the model is all that devices get."""

    def release(self, state: bytes, model: Vector, gathered: Gathered) -> tuple[bytes, Vector]:
        """Return the model after the round, in the sum's memory: block by block, what is written was read before."""
        total = gathered.total
        after: Vector = total.view(np.float32)[: model.size]
        shared = model.size - self._personal
        total[shared:] = 0.0
        for at in range(0, model.size, _BLOCK):
            part = slice(at, at + _BLOCK)
            _, after[part] = self._average.apply(b"", model[part], total[part], gathered.weight)
        return state, after


class StreamingRule:
    """An algorithm of the server's own over a sum, with what it remembers."""

    want: Literal["sum", "each"] = "sum"

    def __init__(self, algorithm: Algorithm, n: int) -> None:
        self._algorithm = algorithm
        self._n = n

    def initial(self) -> bytes:
        """Return the algorithm's first state."""
        return self._algorithm.init(self._n)

    def control(self, state: bytes) -> None:
        """Return nothing: the model is all that devices get."""

    def release(self, state: bytes, model: Vector, gathered: Gathered) -> tuple[bytes, Vector]:
        """Return one step of the algorithm."""
        return self._algorithm.apply(state, model, gathered.total, gathered.weight)


class ScaffoldRule:
    """SCAFFOLD's server (Karimireddy et al. 2020, algorithm 1): x + η · mean Δy, c + (1 / N) Σ Δcᵢ over those that came."""

    want: Literal["sum", "each"] = "sum"

    def __init__(self, n: int, devices: int, server_learning_rate: float) -> None:
        self._n = n
        self._devices = devices
        self._average = fedavg(server_learning_rate)

    def initial(self) -> bytes:
        """Return the zero control variate, float64 little endian."""
        return bytes(8 * self._n)

    def control(self, state: bytes) -> Vector:
        """Return the server's control variate as the devices get it."""
        return np.frombuffer(state, "<f8").astype(np.float32)

    def release(self, state: bytes, model: Vector, gathered: Gathered) -> tuple[bytes, Vector]:
        """Return both after the round."""
        control = np.frombuffer(state, "<f8")
        if gathered.answer.control is not None:
            control = control + gathered.answer.control / self._devices
        _, after = self._average.apply(b"", model, gathered.total, gathered.weight)
        return control.astype("<f8").tobytes(), after


class FlowerRule:
    """One of Flower's strategies, through the server's own adapter, which looks at every update."""

    want: Literal["sum", "each"] = "each"

    def __init__(self, job: Job, n: int) -> None:
        # Flower is slow to import and most runs do not need its strategies.
        from hedgerow.server.strategies.flower_strategy import FlowerAggregator

        # It tells at level INFO of every round, in the middle of ours.
        logging.getLogger("flwr").setLevel(logging.WARNING)
        name = job.strategy.name.removeprefix(PREFIX)
        # Updates come unpacked: what rounding there was is in them already.
        self._aggregator = FlowerAggregator(name, job.strategy.options, n, "float32")

    def initial(self) -> bytes:
        """Return the strategy's first state."""
        return self._aggregator.initial_state()

    def control(self, state: bytes) -> None:
        """Return nothing: the model is all that devices get."""

    def release(self, state: bytes, model: Vector, gathered: Gathered) -> tuple[bytes, Vector]:
        """Return what the strategy makes of the updates, devices in order of their numbers."""
        total = self._aggregator.open(gathered.round, state)
        losses = {outcome.device: outcome.loss for outcome in gathered.answer.outcomes}
        for device, update in sorted(gathered.answer.updates.items()):
            payload = memoryview(update.astype("<f4", copy=False).tobytes())
            weight = gathered.weights[device]
            total.add(Update(f"{device:010d}", [payload], weight, losses.get(device)))
        released = total.release(model)
        return released.state, released.model


def make_rule(setting: Setting) -> Rule:
    """Return the rule of a checked scenario's strategy. Raises KeyError for a name that is nobody's."""
    spec = setting.scenario.job.strategy
    if spec.name.startswith(PREFIX):
        return FlowerRule(setting.scenario.job, setting.n)
    if spec.name == "scaffold":
        return ScaffoldRule(setting.n, setting.population.devices, spec.server_learning_rate)
    if spec.name in (*AVERAGING, *SIMULATED_ONLY):
        return AveragingRule(spec.server_learning_rate, setting.personal)
    return StreamingRule(algorithm_for(spec), setting.n)
