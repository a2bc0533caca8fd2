"""Randomness that privacy hangs on: a stream keyed by the operating system, Gaussian noise and Poisson draws from it.

``SystemRandom`` takes no seed, and neither numpy's nor torch's generators are used: a job's seed, or whoever knows it,
cannot tell the noise. The stream is AES-256 in counter mode under a key from ``os.urandom``; a forked process gets a
key of its own. Noise is floating point (float64, Box–Muller, up to about 8.6 σ): the guarantee is of the ideal
Gaussian, and the gap that Mironov (2012) describes is not closed.

``SeededStream`` draws by the same code from a key that anybody can work out: for simulations, which claim nothing.
"""

from __future__ import annotations

import os
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Doubles = npt.NDArray[np.float64]
BLOCK: Final = 1 << 18
"""Gaussian draws are made in blocks of so many: asking block by block gives what asking at once gives."""

_UNIT = 2.0**-53
_DOMAIN = b"hedgerow-simulated-stream-1"


class RandomStream(Protocol):
    """Where noise and draws come from. Not safe for two threads at once."""

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit words."""

    def gaussian(self, count: int, sigma: float) -> Doubles:
        """Return ``count`` independent draws of N(0, σ²), float64 ``(count,)``."""

    def poisson_batch(self, n: int, rate: float) -> npt.NDArray[np.int64]:
        """Return the indices below ``n`` that were drawn, each on its own with probability ``rate``; sorted."""


class _Sampler:
    """What a stream of uniform words is turned into; whoever inherits brings ``words``."""

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit words."""
        raise NotImplementedError

    def gaussian(self, count: int, sigma: float) -> Doubles:
        """Return ``count`` independent draws of N(0, σ²), float64 (Box and Muller 1958)."""
        out = np.empty(count, np.float64)
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
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


class SystemRandom(_Sampler):
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


class SeededStream(_Sampler):
    """A stream that anybody who knows the seed can repeat: for simulation only, it carries no claim.

    Key and seed give the same words on every machine and in every process; different labels give streams that have
    nothing to do with each other. A report of anything drawn from here says *simulated, no claim*.
    """

    def __init__(self, key: bytes) -> None:
        """Start the stream of a 32-byte key; ``of`` makes one from a seed. Raises ValueError for another length."""
        if len(key) != 32:
            raise ValueError(f"a stream's key has 32 bytes, not {len(key)}")
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    @classmethod
    def of(cls, seed: int, *labels: int | str) -> Self:
        """Return the stream of ``seed`` and ``labels`` (say ``"noise", run, round, device``), from its beginning.

        The key is HKDF-SHA256 (RFC 5869) over both, each with its kind and length before it, so that ``(1, 23)``,
        ``(12, 3)`` and ``("1", "23")`` are three streams.
        """
        material = b"".join(_framed(part) for part in (seed, *labels))
        return cls(HKDF(hashes.SHA256(), 32, salt=None, info=_DOMAIN).derive(material))

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return the stream's next ``count`` words."""
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8").astype(np.uint64, copy=False)


def _framed(part: int | str) -> bytes:
    kind = b"s" if isinstance(part, str) else b"i"
    data = str(part if isinstance(part, str) else int(part)).encode()
    return kind + len(data).to_bytes(4, "big") + data
