"""Planted faults: what goes wrong with machines and sensors, in units of a channel's own normal spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.simulations.bench.selection.replays import DRIFT_ROWS, Doubles, centred_mean

Flags = npt.NDArray[np.bool_]

LEVEL: Final = ("step", "ramp")
OTHER: Final = ("noise", "decoupled", "oscillation", "stuck", "spikes")
SMALLEST, LARGEST = 2.0, 16.0
LEVEL_SHARE, RAMP_SHARE = 0.75, 0.25
LONGEST_ONSET, LONGEST_RECOVERY = 60, 30


@dataclass(frozen=True)
class Fault:
    """One fault in a replay: rows ``start`` to ``end`` are anomalous; it sets in over ``onset`` rows and is gone
    ``recovery`` rows after its end. ``sizes`` has one signed size per channel of ``channels``, in its deviations.
    """

    kind: str
    channels: tuple[int, ...]
    sizes: tuple[float, ...]
    start: int
    end: int
    onset: int
    recovery: int
    seed: int

    def labels(self, rows: int) -> Flags:
        """Return which of ``rows`` rows are anomalous, ``(rows,)``."""
        at = np.arange(rows)
        return (at >= self.start) & (at < self.end)

    def envelope(self, rows: int) -> Doubles:
        """Return the share of the fault that is there in each row, ``(rows,)``, 0 to 1."""
        at = np.arange(rows, dtype=float)
        growing = np.clip((at - self.start + 1) / max(self.onset, 1), 0, 1)
        going = np.clip(1 - (at - self.end + 1) / (self.recovery + 1), 0, 1)
        share: Doubles = np.minimum(growing, going)
        return share


def draw(rng: np.random.Generator, rows: int, among: Sequence[int]) -> Fault:
    """Return a fault of channels ``among`` for ``rows`` judged rows: a third of them, away from both ends."""
    level = rng.random() < LEVEL_SHARE
    kind = LEVEL[int(rng.random() < RAMP_SHARE)] if level else str(rng.choice(OTHER))
    count = int(rng.integers(1, 6 if level else 4))
    chosen = rng.choice(np.array(among), min(count, len(among)), replace=False)
    size = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
    share = rng.uniform(0.5, 1.0, len(chosen))
    share[0] = 1.0
    sizes = size * share * rng.choice([-1.0, 1.0], len(chosen))
    length, margin = rows // 3, rows // 10
    start = int(rng.integers(margin, rows - length - margin + 1))
    return Fault(
        kind,
        tuple(chosen.tolist()),
        tuple(sizes.tolist()),
        start,
        start + length,
        length if kind == "ramp" else int(rng.integers(0, min(LONGEST_ONSET, length) + 1)),
        int(rng.integers(0, LONGEST_RECOVERY + 1)),
        int(rng.integers(2**31)),
    )


def plant(fault: Fault, rest: Doubles, fit: Doubles, spread: Doubles) -> Doubles:
    """Return ``rest`` ``(rows, c)`` with the fault in it; ``fit`` and ``spread`` ``(c,)`` are the channel's normal ones."""
    rng = np.random.default_rng(fault.seed)
    made = rest.copy()
    share = fault.envelope(len(rest))
    for channel, size in zip(fault.channels, fault.sizes, strict=True):
        column = rest[:, channel]
        made[:, channel] = SHAPES[fault.kind](
            _Place(fault, rng, column, fit[:, channel], share), size * spread[channel], size
        )
    return made


@dataclass(frozen=True)
class _Place:
    fault: Fault
    rng: np.random.Generator
    column: Doubles
    fit: Doubles
    share: Doubles


def _moved(place: _Place, size: float, _: float) -> Doubles:
    return place.column + size * place.share


def _noise(place: _Place, _: float, times: float) -> Doubles:
    slow = centred_mean(place.column[:, None], DRIFT_ROWS)[:, 0]
    return place.column + abs(times) * place.share * (place.column - slow)


def _decoupled(place: _Place, _: float, __: float) -> Doubles:
    at = (np.arange(len(place.column)) + int(place.rng.integers(len(place.fit)))) % len(place.fit)
    return np.where(place.share > 0, place.fit[at], place.column)


def _oscillation(place: _Place, size: float, _: float) -> Doubles:
    period, phase = place.rng.uniform(8, 60), place.rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * np.arange(len(place.column)) / period + phase)
    return np.asarray(place.column + size * place.share * wave)


def _stuck(place: _Place, _: float, __: float) -> Doubles:
    held = place.fault.labels(len(place.column))
    return np.where(held, place.column[place.fault.start], place.column)


def _spikes(place: _Place, size: float, _: float) -> Doubles:
    hit = place.rng.random(len(place.column)) < 0.1
    return np.asarray(place.column + size * place.share * hit * place.rng.choice([-1.0, 1.0], len(hit)))


SHAPES: Final[dict[str, Callable[[_Place, float, float], Doubles]]] = {
    "step": _moved,
    "ramp": _moved,
    "noise": _noise,
    "decoupled": _decoupled,
    "oscillation": _oscillation,
    "stuck": _stuck,
    "spikes": _spikes,
}
