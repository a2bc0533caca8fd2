"""The devices as a simulation invents them: how fast, how far, who is there, who fails, who lies.

All draws are functions of the scenario's seed, a label and the round, so that resuming a run, or asking twice, gives
the same world. Times are seconds of simulated time.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hedgerow.simulations.engine.protocol import Attack
from hedgerow.simulations.population.devices import needed_mib
from hedgerow.simulations.scenario.spec import Scenario

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
_LEAST_SPEED = 0.1


@dataclass(frozen=True)
class Trip:
    """What one exchange takes each device, float64 ``(devices,)``: seconds on the way and of training, joules in all."""

    down_s: Doubles
    train_s: Doubles
    up_s: Doubles
    energy_j: Doubles

    @property
    def total_s(self) -> Doubles:
        """Return the time from sending the model to having the update."""
        total: Doubles = self.down_s + self.train_s + self.up_s
        return total


class World:
    """The devices of a scenario. ``device_class`` int64 ``(devices,)`` indexes ``scenario.device_class``."""

    def __init__(self, scenario: Scenario, device_class: Ints) -> None:
        self._scenario = scenario
        self._class = device_class
        self.devices = len(device_class)
        faults = scenario.faults
        jitter = self._column("jitter") * self._normal("speed")
        self._speed = self._column("examples_per_s") * np.maximum(_LEAST_SPEED, 1.0 + jitter)
        self.straggler = self._chosen("straggler", faults.straggler_share)
        self.byzantine = self._chosen("byzantine", faults.byzantine.share if faults.byzantine else 0.0)
        self._phase = self._uniform("night")

    def fits(self, n_parameters: int) -> Mask:
        """Return who has the memory for three copies of the model and the optimizer's."""
        needed = needed_mib(n_parameters, self._scenario.job.training)
        fits: Mask = self._column("memory_mib") >= needed
        return fits

    def trip(self, examples: Doubles, bytes_down: int, bytes_up: int) -> Trip:
        """Return what it takes to fetch ``bytes_down``, train on so many ``examples`` (epochs counted), and send."""
        slow = np.where(self.straggler, self._scenario.faults.straggler_factor, 1.0)
        latency = self._column("latency_s")
        down = (8 * bytes_down / (self._column("down_mbit_s") * 1e6) + latency) * slow
        up = (8 * bytes_up / (self._column("up_mbit_s") * 1e6) + latency) * slow
        train = examples / self._speed * slow
        energy = self._column("train_watts") * train + self._column("radio_watts") * (down + up)
        return Trip(down, train, up, energy)

    def there(self, round: int, simulated_s: float) -> Mask:
        """Return who is reachable in ``round``, which begins at ``simulated_s``."""
        spec = self._scenario.availability
        if spec.kind == "always":
            return np.ones(self.devices, np.bool_)
        chance: Doubles = np.full(self.devices, spec.rate)
        if spec.kind == "diurnal":
            swing = 0.5 + 0.5 * np.cos(2 * np.pi * (simulated_s / spec.period_s + self._phase))
            chance = spec.low + (spec.rate - spec.low) * swing
        there: Mask = self._uniform("available", round) < chance
        return there

    def dropped(self, round: int) -> Mask:
        """Return who would never answer in ``round``."""
        dropped: Mask = self._uniform("dropout", round) < self._scenario.faults.dropout
        return dropped

    def attack(self, device: int, round: int) -> Attack | None:
        """Return what a device does to its update."""
        spec = self._scenario.faults.byzantine
        if spec is None or round < spec.from_round or not self.byzantine[device]:
            return None
        return Attack(spec.kind, spec.scale)

    def _column(self, field: str) -> Doubles:
        values = np.array([getattr(one, field) for one in self._scenario.device_class], np.float64)
        column: Doubles = values[self._class]
        return column

    def _chosen(self, label: str, share: float) -> Mask:
        """Return so many devices of all, at random, always the same ones."""
        chosen = np.zeros(self.devices, np.bool_)
        order = self._rng(label).permutation(self.devices)
        chosen[order[: round(share * self.devices)]] = True
        return chosen

    def _uniform(self, label: str, round: int = 0) -> Doubles:
        return self._rng(label, round).random(self.devices)

    def _normal(self, label: str) -> Doubles:
        return self._rng(label).standard_normal(self.devices)

    def _rng(self, label: str, round: int = 0) -> np.random.Generator:
        return np.random.default_rng((self._scenario.seed, zlib.crc32(label.encode()), round))
