"""The job of a scenario: as a fleet would check it, and against the number of devices and the engine."""

from __future__ import annotations

import msgspec

from hedgerow.server.jobs.validate import check_job
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import StrategySpec
from hedgerow.simulations.scenario.spec import Scenario
from hedgerow.simulations.scenario.strategies import SIMULATED_ONLY, check_simulated


def check_job_part(scenario: Scenario, where: str) -> None:
    """Raise ConfigError for a job that no fleet would take, or that this population or engine cannot run."""
    job, devices = scenario.job, scenario.population.devices
    if job.strategy.name in SIMULATED_ONLY:
        check_simulated(job, where)
        if scenario.engine == "fleet":
            raise ConfigError(
                f"{where}: job.strategy.name: {job.strategy.name!r} is simulated only; engine 'fleet' runs the real "
                "server: use engine 'lean', or a strategy of the server's"
            )
        plain = StrategySpec("fedavg", job.strategy.weighting, job.strategy.server_learning_rate)
        training = msgspec.structs.replace(job.training, proximal_mu=0.0)
        job = msgspec.structs.replace(job, strategy=plain, training=training)
    try:
        check_job(job, where)
    except ConfigError as error:
        # A fleet's messages name keys of the job, which is a table of the scenario.
        raise ConfigError(str(error).replace(f"{where}: ", f"{where}: job.", 1)) from error
    cohort = scenario.job.cohort
    for key, value in (("size", cohort.size or 0), ("quorum", cohort.quorum)):
        if value > devices:
            raise ConfigError(
                f"{where}: job.cohort.{key}: expected at most population.devices ({devices}), got {value}"
            )
    concurrency = scenario.job.strategy.options.get("concurrency", 0)
    if concurrency > devices:
        raise ConfigError(
            f"{where}: job.strategy.options.concurrency: expected at most population.devices ({devices}), got "
            f"{concurrency:g}"
        )
