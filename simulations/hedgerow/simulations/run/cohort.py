"""Who is drawn: the job's rule over all devices, from the scenario's seed. It claims nothing; a fleet draws by its CSPRNG."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from hedgerow.shared.job import CohortSpec
from hedgerow.shared.privacy.noise import SeededStream

Devices = npt.NDArray[np.int64]


def draw(spec: CohortSpec, devices: int, seed: int, round: int) -> Devices:
    """Return the devices of ``round``, sorted, int64.

    ``fixed`` takes the same positions as the server's ``draw_cohort`` with the same generator; ``poisson`` tosses a
    coin for each device.
    """
    stream = SeededStream.of(seed, "cohort", round)
    if spec.rule == "poisson":
        return stream.poisson_batch(devices, spec.rate or 1.0)
    if spec.rule == "all" or spec.size is None or spec.size >= devices:
        return np.arange(devices, dtype=np.int64)
    return np.array(sorted(generator(stream).sample(range(devices), spec.size)), np.int64)


def generator(stream: SeededStream) -> random.Random:
    """Return Python's generator keyed by a stream: it samples without replacement as the server does."""
    return random.Random(stream.words(4).tobytes())  # noqa: S311  simulated draws claim nothing
