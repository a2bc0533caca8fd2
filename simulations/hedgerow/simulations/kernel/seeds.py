"""The generators of many seeds, for less than each takes on its own: the bits are those of ``numpy.random.default_rng``.

numpy makes a seed's words (``SeedSequence``, after O'Neill's ``seed_seq_fe``) and a generator of them (PCG64, O'Neill 2014) in about 10
microseconds, three times as long as a permutation of a device's examples. Here the words of all seeds are made together,
and one generator takes their states in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

FEW: Final = 16
"""So few seeds are left to numpy."""
_POOL: Final = 4
_MASK: Final = 2**32 - 1
_MASK_128: Final = 2**128 - 1
_STEP: Final = 0x2360ED051FC65DA44385DF649FCCF645


def generator(seed: tuple[int, ...]) -> np.random.Generator:
    """Return ``numpy.random.default_rng(seed)``: its words as an array need no conversion of each. Raises ValueError as that does."""
    if min(seed) >= 0 and max(seed) <= _MASK:
        return np.random.Generator(np.random.PCG64(np.array(seed, np.uint32)))
    return np.random.default_rng(seed)


def generators(seeds: Sequence[tuple[int, ...]]) -> Iterator[np.random.Generator]:
    """Yield for each seed a generator that draws what ``numpy.random.default_rng(seed)`` does; it may be the last one again."""
    words = np.array(seeds, np.uint32).T if len(seeds) > FEW and _fit(seeds) else None
    if words is None:
        yield from map(generator, seeds)
        return
    one = np.random.Generator(np.random.PCG64(0))
    for high, low, seq_high, seq_low in _states(words).T.tolist():
        inc = (seq_high << 65 | seq_low << 1 | 1) & _MASK_128
        state = ((inc + (high << 64 | low)) * _STEP + inc) & _MASK_128
        one.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": inc},
            "has_uint32": 0,
            "uinteger": 0,
        }
        yield one


def _fit(seeds: Sequence[tuple[int, ...]]) -> bool:
    """Return whether each seed is as many single words."""
    length = len(seeds[0])
    return all(len(seed) == length and min(seed) >= 0 and max(seed) <= _MASK for seed in seeds)


def _states(words: Words) -> npt.NDArray[np.uint64]:
    """Return ``SeedSequence(seed).generate_state(4, uint64)`` for each column of ``words`` ``(length, k)``, as ``(4, k)``."""
    pool = np.zeros((_POOL, words.shape[1]), np.uint32)
    pool[: len(words)] = words[:_POOL]
    hashed = _Hash(0x43B0D7E5, 0x931E8875)
    pool = hashed(pool)
    for source in range(_POOL):
        others = [place for place in range(_POOL) if place != source]
        pool[others] = _mixed(pool[others], hashed(np.repeat(pool[source : source + 1], _POOL - 1, axis=0)))
    for extra in words[_POOL:]:
        pool = _mixed(pool, hashed(np.repeat(extra[None], _POOL, axis=0)))
    drawn = _Hash(0x8B51F9DD, 0x58F38DED)(np.concatenate([pool, pool])).astype(np.uint64)
    return drawn[::2] | drawn[1::2] << np.uint64(32)


class _Hash:
    """A multiplier that changes with every row it is used on."""

    def __init__(self, first: int, factor: int) -> None:
        self._next, self._factor = first, factor

    def __call__(self, rows: Words) -> Words:
        multipliers = [self._next]
        for _ in range(len(rows)):
            multipliers.append(multipliers[-1] * self._factor & _MASK)
        self._next = multipliers[-1]
        column = np.array(multipliers, np.uint32)[:, None]
        found = (rows ^ column[:-1]) * column[1:]
        return np.asarray(found ^ found >> np.uint32(16), np.uint32)


def _mixed(x: Words, y: Words) -> Words:
    found = x * np.uint32(0xCA01F9DD) - y * np.uint32(0x4973F715)
    return np.asarray(found ^ found >> np.uint32(16), np.uint32)
