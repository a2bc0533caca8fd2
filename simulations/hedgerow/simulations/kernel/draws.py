"""Draws and noise of simulated DP-SGD: from a generator keyed by job and step, so that no two steps ever share one.

These stand in for ``shared.privacy.noise.SystemRandom`` where nothing is claimed: whoever has the scenario can repeat them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def step_generator(noise_key: tuple[int, ...], step: int) -> np.random.Generator:
    """Return the generator of one step (Philox, Salmon et al. 2011): it draws the batch first, the noise next.

    Keys are non-negative integers below 2⁶³; numpy's SeedSequence hashes all of them into Philox's key.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((len(noise_key), *noise_key, step))))


def poisson_draw(generator: np.random.Generator, n: int, rate: float) -> npt.NDArray[np.int64]:
    """Return the indices below ``n`` drawn, each on its own with probability ``rate``; sorted, int64."""
    return np.flatnonzero(generator.random(n) < rate).astype(np.int64, copy=False)


class KeyedDraws:
    """What a device's PrivateTrainer asks of its stream, keyed by ``noise_key`` and the number of the step."""

    def __init__(self, noise_key: tuple[int, ...]) -> None:
        self._key = noise_key
        self._step = 0
        self._generator = step_generator(noise_key, 0)

    def poisson_batch(self, n: int, rate: float) -> npt.NDArray[np.int64]:
        """Begin the next step: return the indices drawn for it."""
        self._generator = step_generator(self._key, self._step)
        self._step += 1
        return poisson_draw(self._generator, n, rate)

    def gaussian(self, count: int, sigma: float) -> Doubles:
        """Return the step's next ``count`` draws of N(0, σ²), float64 ``(count,)``."""
        return sigma * self._generator.standard_normal(count)
