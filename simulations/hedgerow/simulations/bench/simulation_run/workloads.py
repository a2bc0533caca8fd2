"""The workloads: whose data, which network, how many devices a round. Made once, handed to every engine alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.edge_agent.trainer.flat import FlatParameters
from hedgerow.models.pump import Machine, draw_machine
from hedgerow.models.pump.machine import CHANNELS
from hedgerow.models.pump.public import cut, mixed
from hedgerow.models.recipe import find_recipe
from hedgerow.models.recipes.digits import device_split, to_input
from hedgerow.models.synthetic.images import WHITE, ImageKind, make_images
from hedgerow.simulations.bench.simulation_peers.task import Floats, Ints, PeerTask

DEVICES: Final = 100
IMAGES: Final = 10_000
ROWS: Final = 16
SEED: Final = 11
BATCH: Final = 16
LEARNING_RATE: Final = 0.05
ALPHA: Final = 0.5
_FEWEST: Final = 3
_CLIP: Final = 4.0


@dataclass(frozen=True)
class Workload:
    """One row's name, the family whose data it shares, and how many devices take part in a round.

    ``turn`` is how many rounds an engine runs at a time: enough that the first of them, slow after the others' turns
    (cold caches, sleeping cores), does not decide the median of rounds of a few milliseconds.
    """

    name: str
    family: str
    cohort: int
    turn: int


WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        Workload("synth28-10", "synth28", 10, 3),
        Workload("synth28-100", "synth28", 100, 1),
        Workload("digits-10", "digits", 10, 20),
        Workload("digits-100", "digits", 100, 5),
        Workload("mlp-10", "mlp", 10, 30),
        Workload("mlp-100", "mlp", 100, 10),
        Workload("autoencoder-10", "autoencoder", 10, 30),
        Workload("autoencoder-100", "autoencoder", 100, 10),
    )
}


def make_task(family: str) -> PeerTask:
    """Return the data, partition and first model of a family of workloads. Raises KeyError for an unknown one."""
    return _FAMILIES[family]()


def first_model(recipe: str, parameters: dict[str, Any], seed: int) -> Floats:
    """Return the model that a job with this seed begins with, float32 ``(n,)``."""
    torch.manual_seed(seed)
    return FlatParameters(find_recipe(recipe).build(parameters)).values()


def dirichlet_order(labels: Ints, devices: int, alpha: float, seed: int) -> tuple[Ints, Ints]:
    """Return rows in the order of their devices, int64 ``(n,)``, and ``offsets`` ``(devices + 1,)``.

    Each class is divided by a Dirichlet draw (Hsu, Qi and Brown 2019, section 3), drawn anew until every device has
    three examples.
    """
    rng = np.random.default_rng(seed)
    while True:
        owner = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            mine = rng.permutation(np.flatnonzero(labels == label))
            cuts = np.cumsum(rng.dirichlet([alpha] * devices))[:-1] * len(mine)
            for device, part in enumerate(np.split(mine, cuts.astype(np.int64))):
                owner[part] = device
        counts = np.bincount(owner, minlength=devices)
        if counts.min() >= _FEWEST:
            return np.argsort(owner, kind="stable"), _offsets(counts)


def image_task(
    images: int, devices: int, parameters: dict[str, Any] | None = None, *, even: bool = False
) -> PeerTask:
    """Return synthetic 28 by 28 images over ``devices``, for ``image-cnn``; ``even`` gives each as many."""
    made = make_images(ImageKind(), images, SEED)
    if even:
        rows, offsets = np.arange(images), np.linspace(0, images, devices + 1).astype(np.int64)
    else:
        rows, offsets = dirichlet_order(made.labels, devices, ALPHA, SEED)
    x = made.pixels[rows].astype(np.float32) / np.float32(WHITE)
    return _task(
        {"kind": "image", "side": 28, "classes": 10},
        "image-cnn",
        (x, made.labels[rows], offsets),
        parameters or {},
    )


def _digits(devices: int = DEVICES) -> tuple[Floats, Ints, Ints]:
    (all_of_them,) = device_split(1, 1.0, SEED)
    rows, offsets = dirichlet_order(all_of_them.labels, devices, ALPHA, SEED)
    return to_input(all_of_them.images[rows]), all_of_them.labels[rows], offsets


def _digits_task() -> PeerTask:
    return _task({"kind": "digits"}, "digits-cnn", _digits())


def _mlp_task() -> PeerTask:
    x, y, offsets = _digits()
    return _task({"kind": "mlp", "widths": [64, 32, 10]}, "mlp", (x.reshape(len(x), 64), y, offsets))


def _autoencoder_task() -> PeerTask:
    counts = np.random.default_rng(SEED).integers(20, 101, DEVICES)
    x = np.concatenate([_windows(device, int(count)) for device, count in enumerate(counts)])
    size = x.shape[1] * x.shape[2]
    net = {"kind": "autoencoder", "size": size, "hidden": 32, "code": 8}
    return _task(net, "anomaly-autoencoder", (x, None, _offsets(counts)))


def _windows(device: int, count: int) -> Floats:
    """Return windows of one pump, scaled by its data sheet and clipped as the recipe's scoring rule does."""
    stride = ROWS // 2
    rows = Machine(draw_machine(device), device).rows(ROWS + stride * (count - 1))
    return np.asarray(np.clip(mixed(cut(rows, ROWS, stride), CHANNELS), -_CLIP, _CLIP), np.float32)


def _task(
    net: dict[str, Any],
    recipe: str,
    data: tuple[Floats, Ints | None, Ints],
    parameters: dict[str, Any] | None = None,
) -> PeerTask:
    checked = find_recipe(recipe).check(parameters or {})
    x, y, offsets = data
    return PeerTask(
        net=net,
        recipe=recipe,
        parameters=checked,
        seed=SEED,
        batch=BATCH,
        learning_rate=LEARNING_RATE,
        x=np.ascontiguousarray(x),
        y=y,
        offsets=offsets,
        model=first_model(recipe, checked, SEED),
    )


def _offsets(counts: npt.NDArray[np.int64]) -> Ints:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


_FAMILIES: Final[dict[str, Callable[[], PeerTask]]] = {
    "synth28": lambda: image_task(IMAGES, DEVICES),
    "digits": _digits_task,
    "mlp": _mlp_task,
    "autoencoder": _autoencoder_task,
}
