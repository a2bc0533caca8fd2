"""Which examples make which batch: the order that ``PlainTrainer`` takes from the same seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hedgerow.simulations.kernel.seeds import generator

Ints = npt.NDArray[np.int64]


def epoch_orders(order_seed: tuple[int, ...], n: int, epochs: int) -> Iterator[Ints]:
    """Yield a permutation of ``n`` examples for each epoch."""
    return orders_of(generator(order_seed), n, epochs)


def orders_of(order: np.random.Generator, n: int, epochs: int) -> Iterator[Ints]:
    """Yield a permutation of ``n`` examples for each epoch from a device's generator, from which nothing was drawn yet."""
    order.bit_generator.random_raw()  # the trainer's seed for dropout: drawn first, of no use here
    for _ in range(epochs):
        yield order.permutation(n)


def count_batches(n: int, batch_size: int) -> int:
    """Return how many batches an epoch over ``n`` examples has, the last one perhaps short."""
    return -(-n // batch_size)
