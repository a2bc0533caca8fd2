"""An engine in this process, over the reference kernel: slow, exact sums, no tricks. The loop's tests hold on to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hedgerow.simulations.engine.protocol import Answer, Batch, DeviceScores, Outcome, Task, Vector
from hedgerow.simulations.kernel.make import make_kernel
from hedgerow.simulations.kernel.protocol import LocalJob
from hedgerow.simulations.lean.sending import send
from hedgerow.simulations.run.setting import Setting


class InProcessEngine:
    """Trains one task after another. ``batches`` remembers what it was asked, ``closed`` how often it was closed."""

    name = "in-process"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.batches: list[Batch] = []
        self.closed = 0
        self._controls: dict[int, dict[int, np.ndarray]] = {}
        self.kernel = make_kernel(
            "reference", setting.recipe, setting.scenario.job.parameters, setting.scenario.job.training
        )

    @classmethod
    def make(
        cls,
        name: str,
        setting: Setting,
        workers: int | None = None,
        choices: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> InProcessEngine:
        return cls(setting)

    def open(self) -> dict[str, str]:
        return {"kernel": "reference"}

    def hold(self, model: Vector) -> Vector:
        return model.copy()

    def train(self, batch: Batch) -> Answer:
        # Its caller changes models in place.
        self.batches.append(batch._replace(models=[model.copy() for model in batch.models]))
        n = self.setting.n
        total, weight, outcomes, updates = np.zeros(n), 0.0, [], {}
        control = None if batch.control is None else np.zeros(n)
        for task in batch.tasks:
            outcome, update, change = self._one(batch, task)
            outcomes.append(outcome)
            if update is None:
                continue
            total += task.weight * update.astype(np.float64)
            weight += task.weight
            if batch.want == "each":
                updates[task.device] = update
            if control is not None and change is not None:
                control += change
        count = sum(outcome.rejected is None for outcome in outcomes)
        return Answer(total, weight, count, tuple(outcomes), updates, control)

    def _one(self, batch: Batch, task: Task) -> tuple[Outcome, Vector | None, Vector | None]:
        scenario, training = self.setting.scenario, self.setting.scenario.job.training
        x, y = self.setting.population.at(task.round).of(task.device)
        kept = self._controls.setdefault(task.device, {0: np.zeros(self.setting.n, np.float32)})
        mine = kept[max(r for r in kept if r < task.round)]
        job = LocalJob(
            model=batch.models[task.version],
            x=x,
            y=y,
            order_seed=(scenario.job.seed, task.round, task.device),
            epochs=task.epochs,
            private=task.private,
            noise_key=(
                scenario.seed if task.noise_seed is None else task.noise_seed,
                task.round,
                task.device,
            ),
            correction=None if batch.control is None else batch.control - mine,
        )
        out = np.zeros((1, self.setting.n), np.float32)
        result = self.kernel.train([job], out)[0]
        change = None
        if batch.control is not None:
            # Option II: c_i+ = c_i - c + (x - y) / (K * rate).
            fresh = mine - batch.control - out[0] / (result.steps * training.learning_rate)
            change, kept[task.round] = fresh - mine, fresh
        sent = send(out[0], task, scenario.seed, scenario.job.packing)
        loss = None if np.isnan(result.loss) else result.loss
        return (
            Outcome(task.device, len(x), loss, sent.norm_l2, sent.n_bytes, 0.0, sent.rejected),
            sent.values,
            change,
        )

    def score(self, model: Vector) -> dict[str, float]:
        setting = self.setting
        return setting.recipe.score(
            lambda x: self.kernel.forward(model, x),
            setting.population.held_out,
            setting.scenario.job.parameters,
        )

    def score_devices(self, model: Vector, devices: Sequence[int], round: int) -> DeviceScores:
        test = self.setting.population.device_test
        assert test is not None
        losses = [float(self.kernel.losses(model, *test.of(d)).mean()) for d in devices]
        return DeviceScores(np.array(devices), np.array(losses), np.full(len(devices), np.nan))

    def close(self) -> None:
        self.closed += 1
