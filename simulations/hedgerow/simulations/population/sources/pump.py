"""Simulated pumps (``hedgerow.models.pump``): one machine a device, normal operation, windows as its agent cuts them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from hedgerow.models.pump import CHANNELS
from hedgerow.models.pump.batch import machine_rows
from hedgerow.models.pump.machine import draw_machine
from hedgerow.models.pump.public import FIRST_SEED
from hedgerow.simulations.population.pool import Labelled, Pool, Request

MACHINES_AT_ONCE: Final = 64


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``windows`` on each device."""

    windows: Annotated[int, Meta(ge=1, le=100_000)] = 200


def read(request: Request) -> Pool:
    """Return float32 windows of as many machines as there are devices; held out is the recipe's public set.

    Windows are as long as the recipe's and as far apart as the profile says. Raises ConfigError without a profile of
    the pump's channels, or if the recipe takes no windows of them.
    """
    spec, profile, windows = request.spec, request.profile, request.options.windows
    if profile is None or profile.channels != CHANNELS:
        raise request.wrong("profile", f"expected a profile with the channels {', '.join(CHANNELS)}")
    if spec.dtype != "float32" or len(spec.shape) != 2 or spec.shape[1] != len(CHANNELS):
        raise request.wrong(
            "source", f"gives windows of eight channels; recipe {request.recipe.name!r} takes others"
        )
    if request.devices >= FIRST_SEED:
        raise request.wrong("devices", f"expected fewer than {FIRST_SEED} pumps")
    length, stride = spec.shape[0], profile.window.stride
    rows = length + stride * (windows - 1)
    samples = np.empty((request.devices * windows, *spec.shape), np.float32)
    seeds = [(request.seed * 10_007 + device) % FIRST_SEED for device in range(request.devices)]
    for start in range(0, request.devices, MACHINES_AT_ONCE):
        part = seeds[start : start + MACHINES_AT_ONCE]
        made = machine_rows([draw_machine(seed) for seed in part], part, rows).astype(np.float32)
        cut = np.lib.stride_tricks.sliding_window_view(made, length, axis=1)[:, ::stride].transpose(
            0, 1, 3, 2
        )
        samples[start * windows : (start + len(part)) * windows] = cut.reshape(-1, *spec.shape)
    groups = np.repeat(np.arange(request.devices), windows)
    names = tuple(f"pump-{n + 1}" for n in range(request.devices))
    return Pool(Labelled(samples, None), groups, names, ordered=True)
