"""The way from a pool to devices: a kind's owners, then the least and the most that a device may have."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from hedgerow.simulations.population.partition import dirichlet, group, iid, label, quantity
from hedgerow.simulations.population.partition.values import Division, Ints
from hedgerow.simulations.scenario.spec import PartitionKind

Kind = Callable[[Division, np.random.Generator], Ints]
KINDS: dict[PartitionKind, Kind] = {
    "iid": iid.owners,
    "dirichlet": dirichlet.owners,
    "label": label.owners,
    "group": group.owners,
    "quantity": quantity.owners,
    "natural": group.natural,
}
_WHOLE = frozenset({"group", "natural"})


def deal(division: Division, seed: int) -> list[Ints]:
    """Return each device's examples as indices in rising order, the same for the same ``seed``; no index comes twice.

    Raises ConfigError naming the field if no such division exists.
    """
    spec = division.spec
    _check_counts(division)
    rng = np.random.default_rng([seed, 31])
    owner = KINDS[spec.kind](division, rng)
    if spec.kind not in _WHOLE:
        _lift(owner, division, rng)
    if spec.max_examples is not None:
        _cap(owner, spec.max_examples, rng)
    counts = np.bincount(owner[owner >= 0], minlength=division.devices)
    if counts.min() < spec.min_examples:
        raise division.wrong(
            "partition.min_examples",
            f"device {counts.argmin()} has {counts.min()} examples, fewer than {spec.min_examples}",
        )
    order = np.argsort(owner, kind="stable")
    return np.split(order[np.count_nonzero(owner < 0) :], np.cumsum(counts)[:-1])


def _check_counts(division: Division) -> None:
    spec = division.spec
    if spec.max_examples is not None and spec.max_examples < spec.min_examples:
        raise division.wrong(
            "partition.max_examples",
            f"expected at least min_examples ({spec.min_examples}), got {spec.max_examples}",
        )
    if spec.min_examples * division.devices > division.n:
        raise division.wrong(
            "partition.min_examples",
            f"{spec.min_examples} on each of {division.devices} devices are {spec.min_examples * division.devices} "
            f"examples; the source has {division.n}",
        )


def _lift(owner: Ints, division: Division, rng: np.random.Generator) -> None:
    """Move single examples from whoever has most to devices below the least; owners change in place.

    The draw stays as it fell for all others; repeating whole draws until all devices have enough would never end with
    thousands of devices.
    """
    least = division.spec.min_examples
    counts = np.bincount(owner[owner >= 0], minlength=division.devices)
    poor = np.flatnonzero(counts < least)
    if not len(poor):
        return
    mine = _lists(owner, np.flatnonzero(counts > least), rng)
    heap = [(-len(indices), device) for device, indices in mine.items()]
    heapq.heapify(heap)
    for device in np.repeat(poor, least - counts[poor]):
        size, donor = heapq.heappop(heap)
        owner[mine[donor].pop()] = device
        if -size - 1 > least:
            heapq.heappush(heap, (size + 1, donor))


def _lists(owner: Ints, devices: Ints, rng: np.random.Generator) -> dict[int, list[int]]:
    shuffled = rng.permutation(len(owner))
    order = shuffled[np.argsort(owner[shuffled], kind="stable")]
    starts = np.searchsorted(owner[order], devices, "left")
    stops = np.searchsorted(owner[order], devices, "right")
    return {
        int(device): order[start:stop].tolist()
        for device, start, stop in zip(devices, starts, stops, strict=True)
    }


def _cap(owner: Ints, most: int, rng: np.random.Generator) -> None:
    """Take from devices what they have beyond ``most``, at random; owners change in place."""
    shuffled = rng.permutation(len(owner))
    order = shuffled[np.argsort(owner[shuffled], kind="stable")]
    sorted_owner = owner[order]
    rank = np.arange(len(owner)) - np.searchsorted(sorted_owner, sorted_owner, "left")
    owner[order[rank >= most]] = -1
