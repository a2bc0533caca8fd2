"""Draws and noise of simulated DP-SGD: a stream of its own for every job, of which each step takes its own part.

These stand in for ``shared.privacy.noise.SystemRandom`` where nothing is claimed: whoever has the scenario can repeat them.
The bits are ``SeededStream``'s; they become normal draws in float32 here, six times as fast as numpy's ziggurat.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.shared.privacy.noise import SeededStream

Doubles = npt.NDArray[np.float64]
_UNIT: Final = 2.0**-32
_STRETCH: Final = 1 << 15
"""Pairs of draws made at a time."""


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


def normal_draws(
    words: npt.NDArray[np.uint32], sigma: float | npt.NDArray[np.float32], out: npt.NDArray[np.float32]
) -> None:
    """Fill ``out``, float32 ``(rows, count)``, with draws of N(0, σ²), up to 6.6 σ (Box and Muller 1958).

    ``words`` are uint32 ``(rows, noise_words)``; ``sigma`` is a number or float32 ``(rows, 1)``. numpy has logarithm, sine and
    cosine of float32 in vector instructions, and a stretch of columns at a time stays in a core's cache.
    """
    rows = len(out)
    half = words.shape[1] // 2
    spread = np.float32(-2 * math.log(2)) * np.square(np.asarray(sigma, np.float32))
    width = max(1, _STRETCH // max(1, rows))
    for at in range(0, half, width):
        radius = _unit(words[:, at : min(half, at + width)])
        angle = _unit(words[:, half + at : min(2 * half, half + at + width)])
        radius += np.float32(_UNIT)
        np.log2(radius, out=radius)
        radius *= spread
        np.sqrt(radius, out=radius)
        angle *= np.float32(2 * math.pi)
        first, second = out[:, at : min(half, at + width)], out[:, half + at : half + at + width]
        np.cos(angle, out=first)
        first *= radius
        np.sin(angle, out=angle)
        np.multiply(angle[:, : second.shape[1]], radius[:, : second.shape[1]], out=second)


def _unit(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Return words as float32 from 0 to 1."""
    found = words.astype(np.float32)
    found *= np.float32(_UNIT)
    return found


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
        noise = np.empty((1, size), np.float32)
        normal_draws(noise_words(self._stream, size)[None], 1.0, noise)
        self._noise = np.empty(size)
        self._noise[self._order] = noise[0]
        return drawn

    def gaussian(self, count: int, sigma: float) -> Doubles:
        """Return the next ``count`` of the step's draws of N(0, σ²), float64 ``(count,)``."""
        taken, self._noise = self._noise[:count], self._noise[count:]
        return sigma * taken
