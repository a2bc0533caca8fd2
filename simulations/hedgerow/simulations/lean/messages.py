"""What parent and workers say to each other: a few hundred bytes by pipe; the arrays meant are in shared memory."""

from __future__ import annotations

import msgspec

from hedgerow.simulations.engine.protocol import Outcome, Task


class Unit(msgspec.Struct, frozen=True, array_like=True):
    """Tasks that the kernel trains in one call, with their places in the batch. Always the same for the same batch."""

    places: tuple[int, ...]
    tasks: tuple[Task, ...]


class TrainOrder(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Train ``units`` and add what counts to the sum on the lattice ``2**-exponent``.

    ``models`` and ``batch`` are how many models and tasks the batch has: the shapes of the shared arrays; no model is the held one.
    """

    units: tuple[Unit, ...]
    models: int
    batch: int
    exponent: int
    control_exponent: int
    each: bool = False
    control: bool = False


class PredictOrder(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Give the outputs of rows ``first`` to ``last`` of the shared input ``(rows, *shape)``, into the shared ``(rows, *output)``.

    ``models`` is 1 for the first of the shared models, 0 for the held one.
    """

    first: int
    last: int
    rows: int
    shape: tuple[int, ...]
    output: tuple[int, ...]
    models: int = 1


class ScoreOrder(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Score the shared model (``models`` as in ``PredictOrder``) on these devices' own held-out examples."""

    devices: tuple[int, ...]
    round: int
    models: int = 1


Order = TrainOrder | PredictOrder | ScoreOrder


class Trained(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Outcomes of an order's tasks, with their places in the batch."""

    places: tuple[int, ...]
    outcomes: tuple[Outcome, ...]


class Predicted(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The outputs are in place."""


class Scored(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Each device's mean loss and share of hits; NaN where there is none."""

    devices: tuple[int, ...]
    loss: tuple[float, ...]
    score: tuple[float, ...]


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The order could not be carried out, and would not the next time: why, in words; ``storage`` if the disk is to blame."""

    reason: str
    storage: bool = False


Reply = Trained | Predicted | Scored | Failed

encoder = msgspec.msgpack.Encoder()
orders = msgspec.msgpack.Decoder(Order)
replies = msgspec.msgpack.Decoder(Reply)
