"""The flat model vector: all parameters of a module in order, then its buffers' floats are left as built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError

if TYPE_CHECKING:
    import torch

Vector = npt.NDArray[np.float32]


def n_parameters(module: torch.nn.Module) -> int:
    """Return the length of the module's flat vector."""
    return sum(parameter.numel() for parameter in module.parameters())


def to_vector(module: torch.nn.Module) -> Vector:
    """Return the module's parameters in order, float32 ``(n,)``."""
    parts = [parameter.detach().cpu().numpy().ravel() for parameter in module.parameters()]
    return np.concatenate(parts).astype(np.float32, copy=False) if parts else np.zeros(0, np.float32)


def load_vector(module: torch.nn.Module, vector: Vector) -> None:
    """Copy ``vector`` into the module's parameters.

    Raises ContentError if the count differs, exceeds ``MAX_MODEL_PARAMETERS``, or a value is not finite.
    """
    import torch

    wanted = n_parameters(module)
    if vector.size != wanted or wanted > limits.MAX_MODEL_PARAMETERS:
        raise ContentError(f"model of {vector.size} values where the recipe builds {wanted}")
    if not np.isfinite(vector).all():
        raise ContentError("the model holds a non-finite value")
    offset = 0
    with torch.no_grad():
        for parameter in module.parameters():
            count = parameter.numel()
            part = vector[offset : offset + count].reshape(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(part.copy()))
            offset += count


def decode_vector(data: bytes | memoryview) -> Vector:
    """Return raw little-endian float32 bytes as a vector. Raises ContentError if they are no whole number of values."""
    if len(data) % 4:
        raise ContentError(f"model of {len(data)} bytes: not a whole number of float32 values")
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False)
