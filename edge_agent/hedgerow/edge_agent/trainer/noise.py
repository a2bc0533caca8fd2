"""Randomness that privacy hangs on: a stream keyed by the operating system, Gaussian noise and Poisson draws from it.

Nothing here takes a seed, and neither numpy's nor torch's generators are used: a job's seed, or whoever knows it,
cannot tell the noise. The stream is AES-256 in counter mode under a key from ``os.urandom``; a forked process gets a
key of its own. Noise is floating point (float64, Box–Muller, up to about 8.6 σ): the guarantee is of the ideal
Gaussian, and the gap that Mironov (2012) describes is not closed.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

Doubles = npt.NDArray[np.float64]
_BLOCK = 1 << 18
_UNIT = 2.0**-53


class SystemRandom:
    """A cryptographic stream keyed by the operating system; not safe for two threads at once."""

    def __init__(self) -> None:
        self._process = -1
        self._stream: CipherContext | None = None

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit words."""
        return np.frombuffer(self._keyed().update(bytes(8 * count)), dtype=np.uint64)

    def _keyed(self) -> CipherContext:
        if self._stream is None or self._process != os.getpid():
            cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(os.urandom(16)))
            self._stream, self._process = cipher.encryptor(), os.getpid()
        return self._stream

    def gaussian(self, count: int, sigma: float) -> Doubles:
        """Return ``count`` independent draws of N(0, σ²), float64 (Box and Muller 1958)."""
        out = np.empty(count, np.float64)
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            half = (size + 1) // 2
            words = self.words(2 * half) >> np.uint64(11)
            radius = np.sqrt(-2.0 * np.log((words[:half] + np.uint64(1)) * _UNIT))
            angle = words[half:] * (2.0 * np.pi * _UNIT)
            pair = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))
            np.multiply(pair[:size], sigma, out=out[start : start + size])
        return out

    def poisson_batch(self, n: int, rate: float) -> npt.NDArray[np.int64]:
        """Return the indices below ``n`` that were drawn, each on its own with probability ``rate`` (to 2⁻⁶⁴)."""
        threshold = int(rate * 2**64)
        if threshold >= 2**64:
            return np.arange(n, dtype=np.int64)
        return np.flatnonzero(self.words(n) < np.uint64(threshold)).astype(np.int64)
