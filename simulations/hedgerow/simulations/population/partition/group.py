"""``group`` and ``natural``: whole groups of the source, such as machines, files or writers, to a device."""

from __future__ import annotations

import heapq

import numpy as np

from hedgerow.simulations.population.partition.values import Division, Ints


def owners(division: Division, rng: np.random.Generator) -> Ints:
    """Return owners for ``group``: the largest group first, to whoever has the fewest examples; ties at random.

    With fewer groups than devices each group is shared equally by several, as many as its size asks for.
    """
    groups = division.needed_groups()
    sizes = np.bincount(groups).astype(np.int64)
    if len(sizes) < division.devices:
        return _shared(division.devices, groups, sizes, rng)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    heap = [(0, n) for n in range(division.devices)]
    device_of = np.empty(len(sizes), np.int64)
    for group in order.tolist():
        filled, device = heapq.heappop(heap)
        device_of[group] = device
        heapq.heappush(heap, (filled + int(sizes[group]), device))
    return np.asarray(device_of[groups])


def _shared(devices: int, groups: Ints, sizes: Ints, rng: np.random.Generator) -> Ints:
    """Return owners where groups are shared: each next device goes where a device has most examples."""
    holders = (sizes > 0).astype(np.int64)
    heap = [(-float(size), n) for n, size in enumerate(sizes) if size]
    heapq.heapify(heap)
    for _ in range(devices - int(holders.sum())):
        _, group = heapq.heappop(heap)
        holders[group] += 1
        heapq.heappush(heap, (-sizes[group] / holders[group], group))
    first = np.cumsum(holders) - holders
    owner = np.empty(len(groups), np.int64)
    for group in np.flatnonzero(holders).tolist():
        mine = rng.permutation(np.flatnonzero(groups == group))
        owner[mine] = first[group] + np.arange(len(mine)) % holders[group]
    return owner


def natural(division: Division, rng: np.random.Generator) -> Ints:
    """Return owners for ``natural``: one group a device, in the source's order where there are as many, else drawn.

    Groups beyond the devices are nobody's. Raises ConfigError with fewer groups than devices.
    """
    groups = division.needed_groups()
    count = int(groups.max()) + 1
    if count < division.devices:
        raise division.wrong(
            "devices", f"expected at most the source's {count} groups, got {division.devices}"
        )
    device_of = np.full(count, -1, np.int64)
    chosen = np.sort(rng.permutation(count)[: division.devices])
    device_of[chosen] = np.arange(division.devices)
    return np.asarray(device_of[groups])
