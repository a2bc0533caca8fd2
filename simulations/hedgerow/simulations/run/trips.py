"""What one exchange takes every device of a run: its examples, its epochs, the bytes of this model."""

from __future__ import annotations

import numpy as np

from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.world import Trip


def trip_of(run: Run, round: int) -> Trip:
    """Return everybody's times and energy in ``round``."""
    setting = run.setting
    training = setting.scenario.job.training
    counts = np.diff(setting.population.at(round).offsets)
    examples = np.minimum(counts, training.max_samples) * float(training.local_epochs)
    return run.world.trip(examples, setting.bytes_down, setting.bytes_up)
