"""What becomes of an update between a device's training and the server's sum: clipped, falsified, packed, checked.

Pure functions. A device clips before it packs; a byzantine one falsifies what it would have packed; the server unpacks,
checks (finite, norm) and, where the job clips, clips again, as it must: rounding may lift a norm, and liars do not clip.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from hedgerow.edge_agent.trainer.codes import Code
from hedgerow.server.aggregation.payload import MAX_NORM_L2
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import Vector, pack, packed_bytes, unpack
from hedgerow.shared.privacy.central import clip_to
from hedgerow.simulations.engine.protocol import Attack, Task
from hedgerow.simulations.lean.lattice import MAX_VALUE

_ATTACK_STREAM: Final = 1
_DOT: Final = 8192  # BLAS takes so few values on one thread, and they stay in the first cache


class Sent(NamedTuple):
    """What counts at the server: ``values`` float32 ``(n,)``, which may be the update itself; or why nothing does.

    ``norm_l2`` is of the update as trained or falsified, before clipping and packing. ``n_bytes`` is what travelled.
    """

    values: Vector | None
    norm_l2: float
    n_bytes: int
    rejected: str | None = None


def send(update: Vector, task: Task, seed: int, packing: Packing) -> Sent:
    """Return what the server has of ``update``, float32 ``(n,)``, which is left as it is. ``seed`` is the scenario's."""
    norm = norm_l2(update)
    size = packed_bytes(update.size, packing)
    values = update
    if math.isfinite(norm) and task.clip_norm_l2 is not None and norm > 0.999 * task.clip_norm_l2:
        values = clip_to(values, task.clip_norm_l2)
    if task.attack is not None:
        values = falsified(values, task.attack, (seed, task.round, task.device))
        norm = norm_l2(values)
    if not math.isfinite(norm) and not np.isfinite(values).all():
        return Sent(None, norm, size, "non-finite")
    return _received(values, norm, size, task, seed, packing)


def packing_rng(seed: int, task: Task) -> np.random.Generator:
    """Return what rounds an update to int8: keyed by scenario, round and device."""
    return np.random.default_rng((seed, task.round, task.device))


def falsified(update: Vector, attack: Attack, key: tuple[int, ...]) -> Vector:
    """Return what a byzantine device sends instead of ``update``; ``label-flip`` sends what it trained.

    ``noise`` is N(0, s²) with s such that its expected square norm is (``scale`` · the update's)²; ``key`` draws it.
    """
    scale = np.float32(attack.scale)
    with np.errstate(over="ignore", invalid="ignore"):
        match attack.kind:
            case "sign-flip":
                return -scale * update
            case "scale":
                return scale * update
            case "nan":
                return np.full_like(update, np.nan)
            case "noise":
                drawn = np.random.default_rng((*key, _ATTACK_STREAM)).standard_normal(update.size)
                spread = attack.scale * norm_l2(update) / math.sqrt(max(1, update.size))
                return (spread * drawn).astype(np.float32)
            case "label-flip":
                return update


def norm_l2(vector: Vector) -> float:
    """Return the L2 norm of a float32 vector, to float32's precision; not finite if a value is not, or a square overflows."""
    square = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, vector.size, _DOT):
            block = vector[at : at + _DOT]
            square += float(np.dot(block, block))
    return math.sqrt(square) if square >= 0 else math.nan


def _received(values: Vector, norm: float, size: int, task: Task, seed: int, packing: Packing) -> Sent:
    if packing != "float32":
        rng = packing_rng(seed, task) if packing == "int8" else None
        try:
            values = unpack(pack(values, packing, rng), values.size, packing)
        except UpdateRejectedError as error:
            return Sent(None, norm, size, error.reason)
        except ValueError:
            # As the device's trainer: what it cannot pack, it does not send.
            return Sent(None, norm, 0, Code.TRAINING.value)
    if norm > MAX_NORM_L2 or (norm > MAX_VALUE / 2 and float(np.abs(values).max(initial=0.0)) > MAX_VALUE):
        return Sent(None, norm, size, "over-norm")
    if task.clip_norm_l2 is not None:
        values = clip_to(values, task.clip_norm_l2)
    return Sent(values, norm, size)
