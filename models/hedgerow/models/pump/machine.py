"""The simulated pump: a centrifugal pump in a closed water loop, one row of eight channels a second.

Physics, in steady state for each second (the loop settles faster than it is sampled), with two thermal masses:

- head of the pump: ``H = speed² · H0 − a · Q²`` (affinity laws); of the loop: ``H = k · Q²``; so
  ``Q = speed · sqrt(H0 / (a + k))`` litres a minute, and the pressure at the outlet is ``k · Q²`` bar;
- hydraulic power ``∝ H · Q``, efficiency a parabola with its best point at ``Q_best``; shaft power adds a bearing's
  friction ``∝ speed``; current is electrical power over voltage and power factor;
- vibration grows with speed² and with the distance from the best point; wear adds to the bearing's end;
- the motor's body is heated by its losses and cooled to the room, the water by the hydraulic power: first order.

Load: the speed follows a slow wave, a random walk that is pulled back, and now and then a new set point. Wear grows
linearly and very slowly. Every machine differs in its curves, its friction, its sensors' gains and its load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.models.pump.faults import Fault

CHANNELS: Final = (
    "vibration-1",
    "vibration-2",
    "current",
    "pressure",
    "temperature",
    "water-temperature",
    "voltage",
    "flow",
)
NOISE: Final = (0.004, 0.004, 0.035, 0.025, 0.05, 0.03, 0.9, 0.45)
"""Standard deviation of each sensor, in its unit."""
ROOM_C: Final = 22.0
MOTOR_S: Final = 600.0
WATER_S: Final = 1800.0
BLOCK: Final = 1024
DRAWS: Final = len(CHANNELS) + 4


@dataclass(frozen=True)
class MachineSpec:
    """What makes one machine differ from the next; the defaults are the nominal machine."""

    head_bar: float = 3.0
    pump_curve: float = 0.0009
    loop_curve: float = 0.0020
    best_flow_lpm: float = 32.0
    efficiency: float = 0.62
    friction_w: float = 60.0
    imbalance: float = 1.0
    voltage_v: float = 230.0
    wear_per_day: float = 0.02
    load_mean: float = 1.0
    load_wave: float = 0.05
    load_period_s: float = 420.0
    set_points_per_hour: float = 6.0
    gains: tuple[float, ...] = field(default=(1.0,) * len(CHANNELS))


def draw_machine(seed: int) -> MachineSpec:
    """Return a machine of the population: the same for the same ``seed``."""
    rng = np.random.default_rng([seed, 1])

    def about(value: float, share: float) -> float:
        return float(value * (1 + share * rng.uniform(-1, 1)))

    return MachineSpec(
        head_bar=about(3.0, 0.04),
        pump_curve=about(0.0009, 0.05),
        loop_curve=about(0.0020, 0.06),
        best_flow_lpm=about(32.0, 0.04),
        efficiency=about(0.62, 0.04),
        friction_w=about(60.0, 0.15),
        imbalance=about(1.0, 0.12),
        voltage_v=about(230.0, 0.008),
        wear_per_day=about(0.02, 0.8),
        load_mean=about(1.0, 0.02),
        load_wave=about(0.05, 0.4),
        load_period_s=about(420.0, 0.4),
        gains=tuple(float(g) for g in 1 + 0.01 * rng.uniform(-1, 1, len(CHANNELS))),
    )


class Machine:
    """One running pump: rows in order of time, the same for the same spec, seed and faults."""

    def __init__(self, spec: MachineSpec, seed: int, faults: Sequence[Fault] = ()) -> None:
        self.spec = spec
        self.row = 0
        self._faults = list(faults)
        self._rng = np.random.default_rng([seed, 2])
        self._draws: list[list[float]] = []
        self._wander = 0.0
        self._set_point = 0.0
        self._target = 0.0
        self._supply = 0.0
        self._phase = float(self._rng.uniform(0, 2 * math.pi))
        self._stuck: dict[str, float] = {}
        _, _, losses_w, hydraulic_w = self._process(spec.load_mean, 0.0, 0.0, 0.0)
        self._motor_c = ROOM_C + losses_w * 0.11
        self._water_c = ROOM_C + hydraulic_w * 0.03

    def inject(self, fault: Fault) -> None:
        """Let ``fault`` happen too; its rows count from this machine's first row."""
        self._faults.append(fault)

    def rows(self, count: int) -> npt.NDArray[np.float64]:
        """Return the next ``count`` rows, ``(count, 8)``, in the order of ``CHANNELS``."""
        return np.array([self.step() for _ in range(count)], np.float64).reshape(count, len(CHANNELS))

    def step(self) -> tuple[float, ...]:
        """Return the next row: one reading per channel."""
        draws = self._next_draws()
        level = {fault.kind: fault.level(self.row) for fault in self._faults}
        speed = self._speed(draws[-4:])
        cavitation = level.get("cavitation", 0.0)
        bearing = level.get("bearing", 0.0)
        flow, pressure, losses_w, hydraulic_w = self._process(
            speed, level.get("valve", 0.0), cavitation, bearing
        )
        flow *= 1 + 0.04 * cavitation * draws[-2]
        volts = self.spec.voltage_v * (1 - 0.05 * level.get("supply", 0.0)) + self._supply
        self._motor_c += (ROOM_C + losses_w * 0.11 - self._motor_c) / MOTOR_S
        self._water_c += (ROOM_C + hydraulic_w * 0.03 - self._water_c) / WATER_S
        amps = (losses_w + hydraulic_w) / (volts * 0.82)
        values = (
            self._shake(speed, flow) * (1 + 0.9 * cavitation),
            self._shake(speed, flow) * 1.15 * (1 + 0.9 * bearing + self._wear()),
            amps,
            pressure,
            self._motor_c,
            self._water_c,
            volts,
            flow,
        )
        row = self._read(values, draws)
        self.row += 1
        return row

    def _process(
        self, speed: float, valve: float, cavitation: float, bearing: float
    ) -> tuple[float, float, float, float]:
        """Return flow (l/min), pressure (bar), losses (W) and hydraulic power (W) at a speed."""
        spec = self.spec
        head_bar = spec.head_bar * (1 - 0.15 * cavitation)
        loop = spec.loop_curve * (1 + 1.2 * valve)
        flow = speed * math.sqrt(head_bar / (spec.pump_curve + loop))
        pressure = loop * flow * flow
        hydraulic_w = pressure * 1e5 * flow / 60_000
        away = (flow - spec.best_flow_lpm) / spec.best_flow_lpm
        efficiency = max(0.2, spec.efficiency * (1 - 0.8 * away * away) - 0.05 * cavitation)
        friction_w = spec.friction_w * speed * (1 + 0.5 * bearing + self._wear())
        return flow, pressure, hydraulic_w / efficiency - hydraulic_w + friction_w, hydraulic_w

    def _shake(self, speed: float, flow: float) -> float:
        away = (flow - self.spec.best_flow_lpm) / self.spec.best_flow_lpm
        return 0.1 * self.spec.imbalance * speed * speed * (1 + 1.5 * away * away)

    def _wear(self) -> float:
        return self.spec.wear_per_day * self.row / 86_400

    def _speed(self, draws: Sequence[float]) -> float:
        spec = self.spec
        self._wander += -self._wander / 90 + 0.0015 * draws[0]
        self._supply += -self._supply / 40 + 0.25 * draws[1]
        if self._uniform(draws[3]) < spec.set_points_per_hour / 3600:
            self._target = 0.04 * max(-1.5, min(1.5, draws[2]))
        self._set_point += (self._target - self._set_point) / 15
        wave = spec.load_wave * math.sin(2 * math.pi * self.row / spec.load_period_s + self._phase)
        return spec.load_mean + wave + self._wander + self._set_point

    def _read(self, values: Sequence[float], draws: Sequence[float]) -> tuple[float, ...]:
        measured = [
            value * gain + noise * draw
            for value, gain, noise, draw in zip(values, self.spec.gains, NOISE, draws, strict=False)
        ]
        for fault in self._faults:
            if fault.kind == "stuck-sensor" and fault.level(self.row) > 0:
                index = CHANNELS.index(fault.planted)
                stuck = self._stuck.setdefault(fault.planted, values[index] * (1 - 0.35 * fault.severity))
                measured[index] = stuck
        return tuple(measured)

    def _next_draws(self) -> list[float]:
        if not self._draws:
            self._draws = self._rng.standard_normal((BLOCK, DRAWS)).tolist()[::-1]
        return self._draws.pop()

    @staticmethod
    def _uniform(normal: float) -> float:
        return 0.5 * math.erfc(-normal / math.sqrt(2))
