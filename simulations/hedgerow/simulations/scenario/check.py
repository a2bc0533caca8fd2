"""What a scenario may ask for beyond its types: everything that can be known before data are read."""

from __future__ import annotations

from hedgerow.models.recipe import Recipe, find_recipe
from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.scenario.check_job import check_job_part
from hedgerow.simulations.scenario.check_sweep import check_sweep
from hedgerow.simulations.scenario.check_world import check_population, check_rounds, check_world
from hedgerow.simulations.scenario.spec import Scenario


def check_scenario(scenario: Scenario, where: str) -> None:
    """Raise ConfigError, naming file, field and what is expected, if the scenario contradicts itself.

    What only the data tell (sizes, labels, groups) is checked when the population is built.
    """
    recipe = _recipe(scenario, where)
    check_job_part(scenario, where)
    check_population(scenario, recipe, where)
    check_world(scenario, recipe, where)
    check_rounds(scenario, where)
    check_sweep(scenario, where)


def _recipe(scenario: Scenario, where: str) -> Recipe:
    try:
        recipe = find_recipe(scenario.job.recipe)
    except ConfigError as error:
        raise ConfigError(f"{where}: job.recipe: {error}") from error
    try:
        recipe.check(scenario.job.parameters)
    except ConfigError as error:
        raise ConfigError(f"{where}: job.parameters: {error}") from error
    return recipe
