"""Which mechanism a scenario asks for."""

from __future__ import annotations

import numpy as np

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import BUILT_MODES
from hedgerow.simulations.run.mechanism import Mechanism
from hedgerow.simulations.run.setting import Setting


def make_mechanism(setting: Setting, noise_seed: int | None = None) -> Mechanism:
    """Return the mechanism of a checked scenario; ``noise_seed`` is of the noise that it adds itself, by default the scenario's.

    Raises ConfigError or BudgetError as the mode's own plan does."""
    scenario, population = setting.scenario, setting.population
    job = scenario.job
    # Accounting is slow to import; a run without privacy does without it.
    if job.privacy.mode == "central-poisson":
        from hedgerow.simulations.run.mode_central import CentralPoisson

        return CentralPoisson(job, population.devices, scenario.seed if noise_seed is None else noise_seed)
    if job.privacy.mode == "example":
        from hedgerow.simulations.run.mode_example import ExamplePrivacy

        return ExamplePrivacy(job, np.diff(population.at(1).offsets))
    if job.privacy.mode != "none":
        raise ConfigError(
            f"job.privacy.mode: {job.privacy.mode!r} is not built; expected {', '.join(sorted(BUILT_MODES))}"
        )
    from hedgerow.simulations.run.mode_none import NoPrivacy

    return NoPrivacy()
