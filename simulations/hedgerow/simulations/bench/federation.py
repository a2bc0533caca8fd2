"""A fleet in one process: the devices' own training core and the server's own aggregation, without the wire between.

What it measures is what a model learns, not how fast or how safely it travels. Rounds are as in a fleet: every device
trains from the same model, packs its update, and the server's streaming sum takes them one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.trainer.dpsgd import PrivateTrainer
from hedgerow.edge_agent.trainer.local import initial_model
from hedgerow.edge_agent.trainer.plan import StepPlan, schedule
from hedgerow.edge_agent.trainer.sgd import PlainTrainer
from hedgerow.models.recipe import Recipe, TrainingSet
from hedgerow.server.aggregation.aggregator import Update
from hedgerow.server.aggregation.algorithm import algorithm_for
from hedgerow.server.aggregation.streaming import StreamingAggregator
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job, TrainingSpec
from hedgerow.shared.packing import pack
from hedgerow.shared.privacy.accounting import calibrate_noise, epsilon
from hedgerow.shared.privacy.events import DpSgdSteps

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Federated:
    """What came out. ``epsilon`` is the largest over the devices, recomputed from their steps; None without privacy."""

    model: Vector
    epsilon: float | None
    noise_multiplier: float | None


class _Device:
    """One device's examples with the trainer that its job asks for, warm over the rounds."""

    def __init__(self, recipe: Recipe, job: Job, data: TrainingSet) -> None:
        module = recipe.build(job.parameters)
        self.n = len(data.x)
        self.epsilon: float | None = None
        self.plan: StepPlan | None = None
        self._job = job
        if job.privacy.mode == "none":
            self._plain: PlainTrainer | None = PlainTrainer(recipe, module, data)
            return
        self._plain = None
        self._private = PrivateTrainer(recipe, module, data)
        self.plan, self.epsilon = _private_plan(job, self.n)

    def train(self, model: Vector, round: int, index: int) -> Vector:
        """Return this device's update of ``model`` (float32), with privacy where the job asks for it."""
        training: TrainingSpec = self._job.training
        if self._plain is not None:
            return self._plain.train(model, training, (self._job.seed, round, index)).delta
        if self.plan is None:
            raise ConfigError("a private device without a plan")
        return self._private.train(model, training, self.plan)


def federate(recipe: Recipe, job: Job, sets: Sequence[TrainingSet]) -> Federated:
    """Return ``job``'s model over one training set per device.

    Modes are ``none`` and ``example``; the cohort is everybody. Noise and draws of mode ``example`` are keyed by the
    operating system, so that its result differs from run to run. Raises ConfigError for another mode, or where δ
    is above 1 / (10 n) of a device.
    """
    if job.privacy.mode not in ("none", "example"):
        raise ConfigError(f"mode {job.privacy.mode!r} is not built")
    devices = [_Device(recipe, job, data) for data in sets]
    model = initial_model(recipe, job.parameters, job.seed)
    aggregator = StreamingAggregator(algorithm_for(job.strategy), model.size, job.packing)
    state = aggregator.initial_state()
    for round in range(job.rounds):
        total = aggregator.open(round, state)
        for index, device in enumerate(devices):
            delta = device.train(model, round, index)
            weight = float(device.n) if job.strategy.weighting == "samples" else 1.0
            total.add(Update(str(index), [memoryview(pack(delta, job.packing))], weight))
        model, state = total.release(model)
    spent = [device.epsilon for device in devices if device.epsilon is not None]
    noise = [device.plan.noise_multiplier for device in devices if device.plan is not None]
    return Federated(model, max(spent, default=None), min(noise, default=None))


_PLANS: dict[tuple[object, ...], tuple[StepPlan, float]] = {}


def _private_plan(job: Job, n: int) -> tuple[StepPlan, float]:
    privacy, drawn = job.privacy, schedule(job.training, n)
    if privacy.epsilon is None or privacy.delta is None:
        raise ConfigError("mode 'example' needs epsilon and delta")
    if privacy.delta * 10 * n > 1:
        raise ConfigError(f"delta {privacy.delta:g} is above 1 / (10 · {n})")
    rate, steps = drawn.sampling_rate, drawn.steps_per_round
    key = (privacy, rate, steps, job.rounds)
    if key not in _PLANS:
        noise = calibrate_noise(privacy.epsilon, privacy.delta, rate, steps * job.rounds)
        spent = epsilon([DpSgdSteps(rate, noise, steps * job.rounds)], privacy.delta)
        _PLANS[key] = (StepPlan(rate, noise, privacy.clip_norm_l2, steps), spent)
    return _PLANS[key]
