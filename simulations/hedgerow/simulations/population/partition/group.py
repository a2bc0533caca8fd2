"""``group`` and ``natural``: whole groups of the source, such as machines, files or writers, to a device."""

from __future__ import annotations

import heapq

import numpy as np

from hedgerow.simulations.population.partition.values import Division, Ints


def owners(division: Division, rng: np.random.Generator) -> Ints:
    """Return owners for ``group``: the largest group first, to whoever has the fewest examples; ties at random.

    Raises ConfigError with fewer groups than devices.
    """
    groups = division.needed_groups()
    sizes = _sizes(division, groups)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    heap = [(0, n) for n in range(division.devices)]
    device_of = np.empty(len(sizes), np.int64)
    for group in order:
        filled, device = heapq.heappop(heap)
        device_of[group] = device
        heapq.heappush(heap, (filled + int(sizes[group]), device))
    return np.asarray(device_of[groups])


def natural(division: Division, rng: np.random.Generator) -> Ints:
    """Return owners for ``natural``: one group a device, in the source's order where there are as many, else drawn.

    Groups beyond the devices are nobody's. Raises ConfigError with fewer groups than devices.
    """
    groups = division.needed_groups()
    count = len(_sizes(division, groups))
    device_of = np.full(count, -1, np.int64)
    chosen = np.sort(rng.permutation(count)[: division.devices])
    device_of[chosen] = np.arange(division.devices)
    return np.asarray(device_of[groups])


def _sizes(division: Division, groups: Ints) -> Ints:
    sizes = np.bincount(groups).astype(np.int64)
    if len(sizes) < division.devices:
        raise division.wrong(
            "devices", f"expected at most the source's {len(sizes)} groups, got {division.devices}"
        )
    return sizes
