"""Products of stacks of matrices: bound to their places once, by the library that is faster at their size.

numpy's OpenBLAS multiplies small matrices as they lie, torch's MKL copies them into panels first: on an AMD Zen 4 core 100 to 115
GFLOP/s against 60 to 90 for products of up to a million multiplications. Which is taken follows from shapes alone, so that every
process takes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch

SMALL: Final = 1_000_000
"""Multiplications of one product up to which OpenBLAS works without panels."""
_FEW: Final = 16
_MANY_ROWS: Final = 64


def product(
    x: torch.Tensor, w: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None = None
) -> Callable[[], object]:
    """Return a call that fills ``y`` with ``x w + bias``, all ``(stack, rows, columns)`` and kept where they are."""
    if not _small(x, w):
        return partial(torch.bmm, x, w, out=y) if bias is None else partial(torch.baddbmm, bias, x, w, out=y)
    small = partial(np.matmul, x.numpy(), w.numpy(), out=y.numpy())
    if bias is None:
        return small

    def with_bias() -> None:
        small()
        y.add_(bias)

    return with_bias


def copy(source: torch.Tensor, target: torch.Tensor) -> Callable[[], object]:
    """Return a call that copies ``source`` to ``target``, of the same shape: numpy is faster where neither lies densely."""
    if source.device.type == "cpu":
        return partial(np.copyto, target.numpy(), source.numpy())
    return partial(target.copy_, source)


def _small(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Return whether numpy is faster: not for sums of a few rows, nor for many rows by rows, unless these are long."""
    if x.device.type != "cpu" or not (_lies_as_a_matrix(x) and _lies_as_a_matrix(w)):
        return False
    rows, depth, columns = x.shape[-2], x.shape[-1], w.shape[-1]
    if x.stride(-1) == 1 and w.stride(-1) != 1 and (depth <= 2 * columns or rows > _MANY_ROWS):
        return False
    if x.stride(-1) != 1 and rows > columns and depth < _FEW:
        return False
    return rows * depth * columns <= SMALL


def _lies_as_a_matrix(x: torch.Tensor) -> bool:
    """Return whether one of two axes is dense: numpy multiplies others value by value."""
    return x.stride(-1) == 1 or x.stride(-2) == 1
