"""Draws and noise of simulated DP-SGD: a stream of its own for every step of every job, so that no two ever share one.

These stand in for ``shared.privacy.noise.SystemRandom`` where nothing is claimed: whoever has the scenario can repeat them.
The bits are ``SeededStream``'s; they become normal draws in float32 here, three times as fast as numpy's ziggurat.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.shared.privacy.noise import SeededStream

Doubles = npt.NDArray[np.float64]
_UNIT: Final = 2.0**-32


def step_stream(noise_key: tuple[int, ...], step: int) -> SeededStream:
    """Return the stream of one step: the batch is drawn from it first, the noise next.

    Raises ValueError without a key: noise that every device shares would cancel or add up.
    """
    if not noise_key:
        raise ValueError("private training needs a noise key")
    return SeededStream.of(noise_key[0], *noise_key[1:], step)


def unit_noise(stream: SeededStream, count: int) -> torch.Tensor:
    """Return ``count`` independent draws of N(0, 1), float32 ``(count,)`` (Box and Muller 1958), up to about 6.6 σ."""
    half = (count + 1) // 2
    uniform = torch.from_numpy(stream.words(half).view(np.uint32).astype(np.float32))
    radius = uniform[:half].add_(1.0).mul_(_UNIT).log_().mul_(-2.0).sqrt_()
    angle = uniform[half:].mul_(2 * math.pi * _UNIT)
    out = torch.empty((2, half))
    torch.cos(angle, out=out[0]).mul_(radius)
    torch.sin(angle, out=out[1]).mul_(radius)
    return out.view(-1)[:count]


class KeyedDraws:
    """What a device's PrivateTrainer asks of its stream, keyed by ``noise_key`` and the number of the step."""

    def __init__(self, noise_key: tuple[int, ...], n_parameters: int) -> None:
        self._key = noise_key
        self._size = n_parameters
        self._step = 0
        self._noise = np.empty(0)

    def poisson_batch(self, n: int, rate: float) -> npt.NDArray[np.int64]:
        """Begin the next step: return the indices drawn for it."""
        stream = step_stream(self._key, self._step)
        drawn = stream.poisson_batch(n, rate)
        self._noise = unit_noise(stream, self._size).numpy().astype(np.float64)
        self._step += 1
        return drawn

    def gaussian(self, count: int, sigma: float) -> Doubles:
        """Return the next ``count`` of the step's draws of N(0, σ²), float64 ``(count,)``: a model's worth a step."""
        taken, self._noise = self._noise[:count], self._noise[count:]
        return sigma * taken
