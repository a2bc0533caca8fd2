"""Running a scenario from Python: ``run("digits.toml")`` returns what came of it.

from hedgerow.simulations.run.api import run
result = run("scenario.toml", rounds=5, overrides=["job.training.learning_rate=0.1"])
pandas.DataFrame(result.records()).plot("round", "scores.accuracy")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.names import Override, find_scenario
from hedgerow.simulations.run.play import Plan, play
from hedgerow.simulations.run.records import Result, RoundRecord
from hedgerow.simulations.scenario.spec import Scenario

Progress = Callable[[RoundRecord], None]


def run(
    scenario: Scenario | str | Path,
    *,
    engine: str | None = None,
    rounds: int | None = None,
    workers: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    choices: Mapping[str, str] | None = None,
    overrides: Iterable[str | Override] = (),
    interrupt: Interrupt | None = None,
) -> Result:
    """Run a scenario (a value, a file, or the name of a shipped one) to its end and return its result.

    ``engine`` and ``rounds`` stand in for the scenario's. ``workers`` is how many processes train (one per core if None); it
    does not show in the result. With a ``folder`` the run leaves ``results.json``, ``model.npy``, its ledger, and checkpoints to
    ``resume`` from. ``choices`` are an earlier run's ``Result.choices``, to take the same path through the engine.
    ``progress`` gets each round's record. Ctrl-C (or an interrupted notebook cell) ends after the round; the result then
    says ``interrupted``; a second one raises KeyboardInterrupt.

    Raises ConfigError naming file and field, BudgetError, StorageError naming the path, EngineError, and ContentError when
    training falls apart; with a ``folder``, what was reached by then is in its ``results.json``.
    """
    began = time.monotonic()
    named = find_scenario(scenario, overrides, engine, rounds)
    plan = Plan(
        workers=workers,
        folder=None if folder is None else Path(folder),
        resume=resume,
        progress=progress,
        choices=choices,
        began=began,
    )
    if interrupt is not None:
        return play(named, plan, interrupt)
    with Interrupt() as heard:
        return play(named, plan, heard)
