"""The module's order of parameters and the kernels', and the way from one to the other: axes moved, tensor by tensor.

No index of single values is kept, which would be twice as large as the model; and rows of memory are copied, not values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

_BLOCK: Final = 1 << 16
"""Values that are moved at once where they stay in the same memory."""

Vector = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Piece(NamedTuple):
    """Values from ``at`` on, of ``shape`` in the module's order; the kernels hold them with ``axes`` in that order.

    ``columns`` int64 is the order of the last axis where moving axes does not lead to it.
    """

    at: int
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    columns: Ints | None = None

    @property
    def size(self) -> int:
        """How many values."""
        return math.prod(self.shape)

    @property
    def plain(self) -> bool:
        """Whether both orders are the same."""
        return self.columns is None and self.axes == tuple(range(len(self.shape)))

    def inward(self, source: npt.NDArray[np.generic], out: npt.NDArray[np.generic]) -> None:
        """Copy these values from the module's vector ``(n,)`` to the kernels'."""
        theirs = self._part(source).reshape(self.shape)
        ours = self._part(out).reshape([self.shape[axis] for axis in self.axes])
        if self.columns is None:
            np.copyto(ours, theirs.transpose(self.axes))
        else:
            np.take(theirs, self.columns, axis=-1, out=ours, mode="clip")

    def outward(self, source: Vector, out: Vector, base: Vector | None = None) -> None:
        """Copy these values from the kernels' vector to the module's, less those of ``base``, which is the module's too.

        ``out`` may be ``source``: of what changes places, a few rows are copied at a time, all where the first axis is another.
        """
        ours = self._part(source).reshape([self.shape[axis] for axis in self.axes])
        theirs = self._part(out).reshape(self.shape)
        before = None if base is None else self._part(base).reshape(self.shape)
        cuts, apart = [slice(None)], self.plain or not np.may_share_memory(source, out)
        if not apart and self.axes[0] == 0 and len(self.shape) > 1:
            rows = max(1, _BLOCK * len(theirs) // self.size)
            cuts = [slice(at, at + rows) for at in range(0, len(theirs), rows)]
        inverse = None if self.columns is None else np.argsort(self.columns)
        for cut in cuts:
            values = ours[cut] if apart else ours[cut].copy()
            self._outward(values, theirs[cut], None if before is None else before[cut], inverse)

    def _outward(
        self,
        ours: npt.NDArray[np.generic],
        theirs: npt.NDArray[np.generic],
        before: npt.NDArray[np.generic] | None,
        inverse: Ints | None,
    ) -> None:
        if inverse is not None:
            np.take(ours, inverse, axis=-1, out=theirs, mode="clip")
            if before is not None:
                np.subtract(theirs, before, out=theirs)
        elif before is None:
            np.copyto(theirs.transpose(self.axes), ours)
        else:
            np.subtract(ours, before.transpose(self.axes), out=theirs.transpose(self.axes))

    def _part(self, vector: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return vector[self.at : self.at + self.size]


class Layout:
    """Moves vectors between the module's order and the kernels'. ``pieces`` follow each other from 0 on; ``plain`` tells that both
    orders are the same.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = _joined(pieces)
        self.size = sum(piece.size for piece in pieces)
        self.plain = all(piece.plain for piece in pieces)

    def order(self) -> Ints:
        """Return the places in the module's vector at which the kernels' is taken, int64 ``(n,)``."""
        out = np.empty(self.size, np.int64)
        places = np.arange(self.size)
        for piece in self.pieces:
            piece.inward(places, out)
        return out

    def load(self, vector: Vector, out: Vector) -> None:
        """Write a module's vector to ``out`` in the kernels' order, both float32 ``(n,)``. Raises ValueError for another length."""
        if vector.shape != (self.size,):
            raise ValueError(f"a model of {vector.shape} values where the recipe has {self.size}")
        for piece in self.pieces:
            piece.inward(vector, out)

    def inward(self, vector: Vector) -> torch.Tensor:
        """Return a copy of a module's vector in the kernels' order. Raises ValueError for another length."""
        out = np.empty(self.size, np.float32)
        self.load(vector, out)
        return torch.from_numpy(out)

    def outward(self, vector: torch.Tensor, out: Vector, base: Vector | None = None) -> None:
        """Write the kernels' ``vector``, less the module's ``base``, to ``out``, maybe its own memory, in the module's order."""
        found = vector.numpy()
        for piece in self.pieces:
            piece.outward(found, out, base)

    def outward_rows(self, vectors: torch.Tensor, out: npt.NDArray[np.float32], rows: list[int]) -> None:
        """Write ``vectors`` ``(k, n)`` to the ``rows`` of ``out``, in the module's order."""
        found = vectors.cpu()
        if self.plain:
            out[rows] = found.numpy()
            return
        for row, vector in zip(rows, found, strict=True):
            self.outward(vector, out[row])


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Return the pieces with plain neighbours as one."""
    joined: list[Piece] = []
    for piece in pieces:
        if piece.plain and joined and joined[-1].plain:
            last = joined.pop()
            joined.append(Piece(last.at, (last.size + piece.size,), (0,)))
        else:
            joined.append(piece)
    return tuple(joined)
