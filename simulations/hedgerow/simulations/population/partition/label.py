"""``label``: so many classes on each device, each class shared equally among those that hold it (McMahan et al. 2017, section 3)."""

from __future__ import annotations

import numpy as np

from hedgerow.simulations.population.partition.values import Division, Ints


def owners(division: Division, rng: np.random.Generator) -> Ints:
    """Return owners. Every class is held by somebody, and classes are held by about as many devices each.

    Raises ConfigError if devices cannot hold all classes, or a class has fewer examples than holders.
    """
    labels = division.needed_labels()
    classes = np.unique(labels)
    holders = _holders(division, len(classes), rng)
    owner = np.full(division.n, -1, np.int64)
    for n, label in enumerate(classes):
        mine = rng.permutation(np.flatnonzero(labels == label))
        devices = rng.permutation(np.flatnonzero(holders[:, n]))
        if len(mine) < len(devices):
            raise division.wrong(
                "partition.labels_per_device",
                f"class {label} has {len(mine)} examples for {len(devices)} devices that should hold it; use fewer "
                "devices or fewer labels on each",
            )
        owner[mine] = devices[np.arange(len(mine)) % len(devices)]
    return owner


def _holders(
    division: Division, classes: int, rng: np.random.Generator
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return which device holds which class, ``(devices, classes)``: the classes held least so far, ties at random."""
    each = division.spec.labels_per_device
    if each > classes:
        raise division.wrong(
            "partition.labels_per_device", f"expected at most the {classes} classes there are, got {each}"
        )
    if each * division.devices < classes:
        raise division.wrong(
            "partition.labels_per_device",
            f"{division.devices} devices with {each} of {classes} classes each leave some to nobody; expected at least "
            f"{-(-classes // division.devices)}",
        )
    held = np.zeros(classes, np.int64)
    holders = np.zeros((division.devices, classes), np.bool_)
    ties = rng.random((division.devices, classes))
    for device in range(division.devices):
        chosen = np.argsort(held + ties[device], kind="stable")[:each]
        held[chosen] += 1
        holders[device, chosen] = True
    return holders
