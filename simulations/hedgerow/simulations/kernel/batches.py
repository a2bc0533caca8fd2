"""Which examples make which batch: the order that ``PlainTrainer`` takes from the same seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def epoch_orders(order_seed: tuple[int, ...], n: int, epochs: int) -> Iterator[Ints]:
    """Yield a permutation of ``n`` examples for each epoch."""
    order = _generator(order_seed)
    order.bit_generator.random_raw()  # the trainer's seed for dropout: drawn first, of no use here
    for _ in range(epochs):
        yield order.permutation(n)


def _generator(seed: tuple[int, ...]) -> np.random.Generator:
    """Return ``numpy.random.default_rng(seed)``, in two thirds of the time: its words as an array need no conversion of each."""
    if min(seed) >= 0 and max(seed) < 2**32:
        return np.random.Generator(np.random.PCG64(np.array(seed, np.uint32)))
    return np.random.default_rng(seed)


def count_batches(n: int, batch_size: int) -> int:
    """Return how many batches an epoch over ``n`` examples has, the last one perhaps short."""
    return -(-n // batch_size)
