"""Draws and noise of simulated DP-SGD: a stream of its own for every job, of which each step takes its own part.

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


def job_stream(noise_key: tuple[int, ...]) -> SeededStream:
    """Return the stream of one job's private training. Each step takes from it its draw first, then its noise.

    Raises ValueError without a key: noise that every device shares would cancel or add up.
    """
    if not noise_key:
        raise ValueError("private training needs a noise key")
    return SeededStream.of(noise_key[0], *noise_key[1:])


def noise_words(stream: SeededStream, count: int) -> npt.NDArray[np.uint32]:
    """Return the words that make ``count`` normal draws: an even number, uint32."""
    return stream.words((count + 1) // 2).view(np.uint32)


def normal_draws(words: npt.NDArray[np.uint32], count: int, sigma: float | torch.Tensor) -> torch.Tensor:
    """Return draws of N(0, σ²), float32 ``(rows, count)``, from uint32 ``(rows, noise_words)`` (Box and Muller 1958), up to 6.6 σ.

    ``sigma`` is a number or float32 ``(rows, 1)``.
    """
    uniform = torch.from_numpy(words.astype(np.float32))
    half = uniform.shape[1] // 2
    radius = uniform[:, :half].add_(1.0).mul_(_UNIT).log_().mul_(-2.0).sqrt_().mul_(sigma)
    angle = uniform[:, half:].mul_(2 * math.pi * _UNIT)
    out = torch.empty_like(uniform)
    torch.cos(angle, out=out[:, :half]).mul_(radius)
    torch.sin(angle, out=out[:, half:]).mul_(radius)
    return out[:, :count]


class KeyedDraws:
    """What a device's PrivateTrainer asks of its stream, keyed by ``noise_key``: a draw and a model's worth of noise a step.

    ``order`` int64 ``(n_parameters,)`` is the kernels' order of parameters: theirs is the noise, and so every kernel has the same.
    """

    def __init__(self, noise_key: tuple[int, ...], order: npt.NDArray[np.int64]) -> None:
        self._stream = job_stream(noise_key)
        self._order = order
        self._noise = np.empty(0)

    def poisson_batch(self, n: int, rate: float) -> npt.NDArray[np.int64]:
        """Begin the next step: return the indices drawn for it."""
        drawn = self._stream.poisson_batch(n, rate)
        size = len(self._order)
        self._noise = np.empty(size)
        self._noise[self._order] = normal_draws(noise_words(self._stream, size)[None], size, 1.0)[0].numpy()
        return drawn

    def gaussian(self, count: int, sigma: float) -> Doubles:
        """Return the next ``count`` of the step's draws of N(0, σ²), float64 ``(count,)``."""
        taken, self._noise = self._noise[:count], self._noise[count:]
        return sigma * taken
