"""Many pumps at once: the rows that ``Machine`` gives, without faults, in time that hardly grows with their number.

What a machine remembers from row to row (load, supply, temperatures) is stepped for all machines together; what follows
from that is worked out for all rows in one go. Equal to ``Machine`` up to the last bits of sine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hedgerow.models.pump.machine import (
    BLOCK,
    CHANNELS,
    DRAWS,
    MOTOR_S,
    NOISE,
    ROOM_C,
    WATER_S,
    MachineSpec,
)

Doubles = npt.NDArray[np.float64]
_UNLIKELY = -1.0


class _Flow(NamedTuple):
    flow: Doubles
    pressure: Doubles
    losses_w: Doubles
    hydraulic_w: Doubles


def machine_rows(specs: Sequence[MachineSpec], seeds: Sequence[int], rows: int) -> Doubles:
    """Return the first ``rows`` rows of each machine, float64 ``(machines, rows, 8)``, in the order of ``CHANNELS``.

    Memory: about 40 values a row and machine while it works.
    """
    if not specs or not rows:
        return np.zeros((len(specs), rows, len(CHANNELS)))
    column = _Columns(specs)
    draws, phase = _draws(seeds, rows)
    speed, supply = _load(column, draws, phase)
    wear = column.wear_per_day * np.arange(rows) / 86_400
    process = _process(column, speed, wear)
    start = _process(column, column.load_mean, np.zeros((len(specs), 1)))
    motor, water = _temperatures(process, start)
    volts = column.voltage_v + supply
    flow = process.flow
    shake = _shake(column, speed, flow)
    values = np.stack(
        [
            shake,
            shake * 1.15 * (1 + wear),
            (process.losses_w + process.hydraulic_w) / (volts * 0.82),
            process.pressure,
            motor,
            water,
            volts,
            flow,
        ],
        axis=2,
    )
    gains = np.array([spec.gains for spec in specs])[:, None, :]
    read: Doubles = values * gains + np.array(NOISE) * draws[:, :, : len(CHANNELS)]
    return read


class _Columns:
    """The machines' constants, each ``(machines, 1)``."""

    def __init__(self, specs: Sequence[MachineSpec]) -> None:
        def column(name: str) -> Doubles:
            return np.array([[getattr(spec, name)] for spec in specs], np.float64)

        self.head_bar = column("head_bar")
        self.pump_curve = column("pump_curve")
        self.loop_curve = column("loop_curve")
        self.best_flow_lpm = column("best_flow_lpm")
        self.efficiency = column("efficiency")
        self.friction_w = column("friction_w")
        self.imbalance = column("imbalance")
        self.voltage_v = column("voltage_v")
        self.wear_per_day = column("wear_per_day")
        self.load_mean = column("load_mean")
        self.load_wave = column("load_wave")
        self.load_period_s = column("load_period_s")
        self.set_points_per_hour = column("set_points_per_hour")


def _draws(seeds: Sequence[int], rows: int) -> tuple[Doubles, Doubles]:
    """Return each machine's draws ``(machines, rows, DRAWS)`` and its phase ``(machines, 1)``, as ``Machine`` draws them."""
    blocks = -(-rows // BLOCK)
    draws = np.empty((len(seeds), rows, DRAWS))
    phase = np.empty((len(seeds), 1))
    for n, seed in enumerate(seeds):
        rng = np.random.default_rng([seed, 2])
        phase[n] = rng.uniform(0, 2 * math.pi)
        draws[n] = rng.standard_normal((blocks * BLOCK, DRAWS))[:rows]
    return draws, phase


def _load(column: _Columns, draws: Doubles, phase: Doubles) -> tuple[Doubles, Doubles]:
    """Return speed and supply, each ``(machines, rows)``."""
    machines, rows = draws.shape[:2]
    wander, supply, target, set_point = (np.zeros(machines) for _ in range(4))
    wanders, supplies, set_points = (np.empty((machines, rows)) for _ in range(3))
    kicks, jolts = 0.0015 * draws[:, :, -4], 0.25 * draws[:, :, -3]
    targets = 0.04 * np.clip(draws[:, :, -2], -1.5, 1.5)
    switched = _switches(draws[:, :, -1], column.set_points_per_hour / 3600)
    for row in range(rows):
        wander += -wander / 90 + kicks[:, row]
        supply += -supply / 40 + jolts[:, row]
        target = np.where(switched[:, row], targets[:, row], target)
        set_point += (target - set_point) / 15
        wanders[:, row], supplies[:, row], set_points[:, row] = wander, supply, set_point
    turn = 2 * math.pi * np.arange(rows) / column.load_period_s + phase
    return column.load_mean + column.load_wave * np.sin(turn) + wanders + set_points, supplies


def _switches(normal: Doubles, chance: Doubles) -> npt.NDArray[np.bool_]:
    """Return where the normal draw's distribution function is below ``chance``, by the same erfc as ``Machine``'s."""
    switched = np.zeros(normal.shape, np.bool_)
    certain = 0.5 * math.erfc(-_UNLIKELY / math.sqrt(2))
    candidates = np.argwhere((normal < _UNLIKELY) | (chance > certain))
    for machine, row in candidates:
        below = 0.5 * math.erfc(-float(normal[machine, row]) / math.sqrt(2))
        switched[machine, row] = below < chance[machine, 0]
    return switched


def _process(column: _Columns, speed: Doubles, wear: Doubles) -> _Flow:
    loop = column.loop_curve
    flow = speed * np.sqrt(column.head_bar / (column.pump_curve + loop))
    pressure = loop * flow * flow
    hydraulic_w = pressure * 1e5 * flow / 60_000
    away = (flow - column.best_flow_lpm) / column.best_flow_lpm
    efficiency = np.maximum(0.2, column.efficiency * (1 - 0.8 * away * away))
    friction_w = column.friction_w * speed * (1 + wear)
    return _Flow(flow, pressure, hydraulic_w / efficiency - hydraulic_w + friction_w, hydraulic_w)


def _temperatures(process: _Flow, start: _Flow) -> tuple[Doubles, Doubles]:
    """Return motor and water, each ``(machines, rows)``: first order towards what the losses would make them."""
    made = []
    for towards, first, lag in (
        (ROOM_C + process.losses_w * 0.11, ROOM_C + start.losses_w * 0.11, MOTOR_S),
        (ROOM_C + process.hydraulic_w * 0.03, ROOM_C + start.hydraulic_w * 0.03, WATER_S),
    ):
        now, rows = first[:, 0].copy(), np.empty_like(towards)
        for row in range(towards.shape[1]):
            now += (towards[:, row] - now) / lag
            rows[:, row] = now
        made.append(rows)
    return made[0], made[1]


def _shake(column: _Columns, speed: Doubles, flow: Doubles) -> Doubles:
    away = (flow - column.best_flow_lpm) / column.best_flow_lpm
    shake: Doubles = 0.1 * column.imbalance * speed * speed * (1 + 1.5 * away * away)
    return shake
