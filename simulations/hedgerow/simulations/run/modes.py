"""Which mechanism a scenario asks for, and which combinations a simulation refuses, with the reason."""

from __future__ import annotations

import numpy as np

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import BUILT_MODES, Job
from hedgerow.simulations.run.mechanism import Mechanism
from hedgerow.simulations.run.setting import Setting

_MODES_OF = {
    "scaffold": ("none",),
    "fedper": ("none",),
    "fedbuff": ("none", "example"),
}
_WHY = {
    "scaffold": "control variates are releases that no mechanism here charges",
    "fedper": "what a personal layer adds to the shared one is not accounted for",
    "fedbuff": "its arrivals are not Poisson draws",
}


def check_modes(job: Job, where: str) -> None:
    """Raise ConfigError, naming the key, for a mode that is not built or not sound with the job's strategy."""
    mode, name = job.privacy.mode, job.strategy.name
    if mode not in BUILT_MODES:
        raise ConfigError(
            f"{where}: job.privacy.mode: expected {', '.join(sorted(BUILT_MODES))}; {mode!r} is not built yet"
        )
    allowed = _MODES_OF.get(name)
    if allowed is not None and mode not in allowed:
        raise ConfigError(
            f"{where}: job.strategy.name: {name!r} runs with privacy.mode {' or '.join(map(repr, allowed))}, not {mode!r}: "
            f"{_WHY[name]}"
        )
    if mode == "none" and job.cohort.rule == "poisson":
        raise ConfigError(
            f"{where}: job.cohort.rule: 'poisson' is for mode 'central-poisson'; expected 'all' or 'fixed'"
        )


def make_mechanism(setting: Setting) -> Mechanism:
    """Return the mechanism of a checked scenario. Raises ConfigError or BudgetError as the mode's own plan does."""
    scenario, population = setting.scenario, setting.population
    job = scenario.job
    # Accounting is slow to import; a run without privacy does without it.
    if job.privacy.mode == "central-poisson":
        from hedgerow.simulations.run.mode_central import CentralPoisson

        return CentralPoisson(job, population.devices, scenario.seed)
    if job.privacy.mode == "example":
        from hedgerow.simulations.run.mode_example import ExamplePrivacy

        return ExamplePrivacy(job, np.diff(population.at(1).offsets))
    from hedgerow.simulations.run.mode_none import NoPrivacy

    return NoPrivacy()
