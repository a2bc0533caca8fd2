"""Public telemetry: windows of simulated pumps, with and without faults, that no device has measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.models.pump.faults import FAULTS
from hedgerow.models.pump.machine import CHANNELS, Machine, draw_machine

NOMINAL: Final = (0.1, 0.115, 1.28, 2.06, 36.2, 25.3, 230.0, 32.0)
SPREAD: Final = (0.02, 0.022, 0.25, 0.25, 1.5, 0.6, 2.6, 2.5)
"""The data sheet of the family, as in ``firmware_configs/profiles/pump.toml`` (a test compares them)."""
FIRST_SEED: Final = 1_000_000
"""Public machines have seeds from here on; the machines of a fleet have smaller ones."""


@dataclass(frozen=True)
class PublicMachine:
    """Windows of one public machine: ``normal`` ``(n, rows, 8)``, ``faulty`` ``(m, rows, 8)`` of every kind of fault."""

    normal: npt.NDArray[np.float64]
    faulty: npt.NDArray[np.float64]


def cut(rows: npt.NDArray[np.float64], length: int, stride: int) -> npt.NDArray[np.float64]:
    """Return windows ``(n, length, c)`` of ``rows`` ``(r, c)``, oldest first."""
    starts = range(0, len(rows) - length + 1, stride)
    return np.asarray(np.stack([rows[start : start + length] for start in starts]))


def public_machine(index: int, length: int, windows: int) -> PublicMachine:
    """Return public machine ``index`` with ``windows`` normal windows and as many with a fault, in equal shares."""
    spec, seed = draw_machine(FIRST_SEED + index), FIRST_SEED + index
    stride = max(1, length // 2)
    normal = cut(Machine(spec, seed).rows(length + stride * (windows - 1)), length, stride)
    per_kind = max(1, windows // len(FAULTS))
    faulty = [
        cut(_after(spec_seed=seed, kind=kind, rows=length + stride * (per_kind - 1)), length, stride)
        for kind in sorted(FAULTS)
    ]
    return PublicMachine(normal, np.concatenate(faulty))


def _after(spec_seed: int, kind: str, rows: int) -> npt.NDArray[np.float64]:
    machine = Machine(draw_machine(spec_seed), spec_seed + 500_000, [FAULTS[kind]])
    return machine.rows(rows + 30)[30:]


def mixed(windows: npt.NDArray[np.float64], channels: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return windows scaled by the data sheet for a device of other channels: fixed random mixtures of the pump's.

    With eight channels they are the pump's own, whatever their names. Shapes ``(n, rows, 8)`` to ``(n, rows, c)``.
    """
    scaled = (windows - np.array(NOMINAL)) / np.array(SPREAD)
    if len(channels) == len(CHANNELS):
        return np.asarray(scaled)
    weights = np.random.default_rng(len(channels)).standard_normal((len(CHANNELS), len(channels)))
    return np.asarray(scaled @ (weights / np.linalg.norm(weights, axis=0)))
