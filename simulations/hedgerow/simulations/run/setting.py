"""What a run starts from: the checked scenario, the recipe's code, everybody's data and the first model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hedgerow.models.recipe import Recipe, find_recipe
from hedgerow.shared.packing import Vector, packed_bytes
from hedgerow.simulations.population.values import Population
from hedgerow.simulations.run.names import NamedScenario
from hedgerow.simulations.scenario.spec import Scenario

PERSONAL_OPTION = "personal_tensors"


class Setting(NamedTuple):
    """Values that stay the same in all rounds. ``scenario.job.parameters`` have the recipe's defaults filled in.

    A model has ``n`` values, of which the last ``personal`` stay on the devices (``fedper``).
    """

    scenario: Scenario
    recipe: Recipe
    population: Population
    n: int
    personal: int = 0

    @property
    def model(self) -> Vector:
        """Return the untrained model, float32 ``(n,)``: made anew at each call, it is not kept."""
        from hedgerow.edge_agent.trainer.local import initial_model

        job = self.scenario.job
        return initial_model(self.recipe, self.recipe.check(job.parameters), job.seed)

    @property
    def bytes_up(self) -> int:
        """Return what one update takes packed; SCAFFOLD's control change travels beside it in float32."""
        job = self.scenario.job
        extra = 4 * self.n if job.strategy.name == "scaffold" else 0
        return packed_bytes(self.n - self.personal, job.packing) + extra

    @property
    def bytes_down(self) -> int:
        """Return what a device receives: the shared values in float32, with SCAFFOLD the control variate too."""
        extra = 4 * self.n if self.scenario.job.strategy.name == "scaffold" else 0
        return 4 * (self.n - self.personal) + extra


def make_setting(named: NamedScenario) -> Setting:
    """Return the setting of a scenario; reads its data, imports torch.

    Raises ConfigError naming the field, for what only recipe and data can tell.
    """
    # Both load torch or the data: not before somebody asks for a run.
    from hedgerow.edge_agent.trainer.local import initial_model
    from hedgerow.simulations.population.build import build_population

    scenario = named.scenario
    recipe = find_recipe(scenario.job.recipe)
    parameters = recipe.check(scenario.job.parameters)
    job = msgspec.structs.replace(scenario.job, parameters=parameters)
    scenario = msgspec.structs.replace(scenario, job=job)
    population = build_population(scenario, recipe, named.base)
    n = initial_model(recipe, parameters, job.seed).size
    return Setting(scenario, recipe, population, n, personal_values(scenario, recipe))


def personal_values(scenario: Scenario, recipe: Recipe) -> int:
    """Return how many of the model's last values stay on the device: 0 but with ``fedper``."""
    if scenario.job.strategy.name != "fedper":
        return 0
    sizes = [p.numel() for p in recipe.build(scenario.job.parameters).parameters()]
    return last_values(sizes, int(scenario.job.strategy.options.get(PERSONAL_OPTION, 2)))


def last_values(sizes: Sequence[int], tensors: int) -> int:
    """Return the size of the last ``tensors`` of ``sizes`` together; something must be left to share.

    Raises ConfigError.
    """
    from hedgerow.shared.errors import ConfigError

    if not 1 <= tensors < len(sizes):
        raise ConfigError(
            f"job.strategy.options.{PERSONAL_OPTION}: expected 1 to {len(sizes) - 1} of the model's {len(sizes)} tensors, "
            f"so that some are shared; got {tensors}"
        )
    return sum(sizes[len(sizes) - tensors :])


def scenario_folder(path: Path) -> Path:
    """Return the folder that a scenario's relative paths start from."""
    return path.resolve().parent
