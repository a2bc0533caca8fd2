"""What ``hedgerow simulate`` does once its arguments are read."""

from __future__ import annotations

import time
from datetime import datetime
from math import nan
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from hedgerow.server.cli.output import print_json, print_table, say
from hedgerow.shared.errors import ConfigError, HedgerowError
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.run.folders import new_folder, newest_folder
from hedgerow.simulations.run.halving import ranked
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.names import NamedScenario, find_scenario, shipped
from hedgerow.simulations.run.play import LEDGER_NAME, Plan, play
from hedgerow.simulations.run.progress import Progress, progress_on
from hedgerow.simulations.run.records import Result
from hedgerow.simulations.run.sweep import FILE_NAME, Options, SweepResult, check_trials, run_sweep
from hedgerow.simulations.run.toml_text import changed, toml_of, toml_value
from hedgerow.simulations.run.words import privacy_line, summary_rows, trial_row
from hedgerow.simulations.scenario.spec import Scenario

_ENDING = "ending after this round; Ctrl-C again ends at once"


class Request(NamedTuple):
    """The arguments of a run."""

    file: str
    engine: str | None
    rounds: int | None
    workers: int | None
    folder: Path | None
    resume: bool
    overrides: tuple[str, ...]
    json: bool
    quiet: bool
    like: Path | None = None


def simulate(request: Request) -> int:
    """Run a scenario; return 0, or 130 if it was interrupted."""
    began = time.monotonic()
    if request.like is not None and request.resume:
        raise ConfigError("--like: a run that goes on keeps its own choices; leave --like or --resume out")
    named = _named(request)
    choices = _choices(request, named)
    folder = _folder(request, named)
    with progress_on(
        Console(stderr=True), named.scenario.job.rounds, _metric(named), request.quiet
    ) as progress:
        plan = Plan(request.workers, folder, request.resume, progress.round, choices, began)
        with Interrupt(lambda: progress.note(_ENDING)) as heard:
            result = play(named, plan, heard)
        files = _report(result, folder, progress)
    show(result, folder, files, request.json)
    return 0 if result.state == "finished" else 130


def print_job(file: str, overrides: list[str], rounds: int | None) -> int:
    """Print a scenario's job in TOML. Raises ConfigError where a fleet would refuse it."""
    from hedgerow.server.strategies.catalogue import check_strategy

    named = find_scenario(file, overrides, rounds=rounds)
    job = named.scenario.job
    check_strategy(job, named.where)
    say(toml_of(changed(job)).rstrip())
    return 0


def list_scenarios(json: bool) -> int:
    """Print the scenarios that come along."""
    found = [read_toml(path, Scenario) for path in shipped()]
    if json:
        print_json([{"name": one.name, "description": one.description} for one in found])
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "devices", "rounds", "strategy", "privacy"):
        table.add_column(name, no_wrap=True)
    table.add_column("")
    for path, one in zip(shipped(), found, strict=True):
        job = one.job
        sizes = (str(one.population.devices), str(job.rounds))
        table.add_row(path.stem, *sizes, job.strategy.name, job.privacy.mode, one.description)
    Console().print(table, highlight=False)
    return 0


def compare(first: Path, second: Path, json: bool) -> int:
    """Print two results side by side."""
    from hedgerow.simulations.report import compare as side_by_side
    from hedgerow.simulations.run.results import read_result

    found = side_by_side.compare(read_result(first), read_result(second))
    if json:
        print_json(found)
    else:
        side_by_side.print_comparison(found)
    return 0


def show(result: Result, folder: Path, files: list[Path], json: bool) -> None:
    """Print a result: a table, or one JSON object without the records of single devices."""
    if json:
        print_json(msgspec.structs.replace(result, device_records=()))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in [*summary_rows(result), ("files", str(folder))]:
        table.add_row(name, value)
    Console().print(table, highlight=False)
    for path in files:
        say(f"  {path}")


def _report(result: Result, folder: Path, progress: Progress) -> list[Path]:
    """Write tables and plots. A run is not lost for want of a plot: what fails is told."""
    try:
        from hedgerow.simulations.report.write import write_report

        return write_report(result, folder)
    except ModuleNotFoundError as error:
        # The tables and plots need a package that this installation lacks.
        progress.note(f"no plots: {error.name} is not installed; try: pip install 'hedgerow[simulation]'")
    except (HedgerowError, OSError) as error:
        progress.note(f"no plots: {error}")
    return []


def _named(request: Request) -> NamedScenario:
    return find_scenario(request.file, request.overrides, request.engine, request.rounds)


def _choices(request: Request, named: NamedScenario) -> dict[str, str] | None:
    if request.like is None:
        return None
    from hedgerow.simulations.run.like import choices_like  # loads torch

    return choices_like(request.like, named.scenario.engine)


def _folder(request: Request, named: NamedScenario) -> Path:
    if request.folder is not None:
        return request.folder
    if request.resume:
        return newest_folder(named.scenario.name)
    return new_folder(named.scenario.name, datetime.now().astimezone())


def _sweep_folder(request: Request, named: NamedScenario) -> Path:
    name = f"{named.scenario.name}-sweep"
    if request.folder is not None:
        return request.folder
    # The ledger is there from the first trial on, the sweep's own file only at the end.
    return (
        newest_folder(name, LEDGER_NAME) if request.resume else new_folder(name, datetime.now().astimezone())
    )


def _metric(named: NamedScenario) -> str:
    from hedgerow.models.recipe import find_recipe

    return find_recipe(named.scenario.job.recipe).metric


def sweep(request: Request) -> int:
    """Search the scenario's sweep fields; return 0, or 130 if it was interrupted."""
    named = _named(request)
    check_trials(named)
    folder = _sweep_folder(request, named)
    if (folder / FILE_NAME).exists() and not request.resume:
        raise ConfigError(
            f"{folder}: holds a sweep already; go on with it by --resume, or give another --folder"
        )
    choices = _choices(request, named)
    progress = progress_on(Console(stderr=True, force_terminal=False), 1, "", request.quiet)
    with Interrupt(lambda: progress.note(_ENDING)) as heard:
        found = run_sweep(named, Options(folder, request.workers, progress.note, heard, choices))
    if request.json:
        print_json(found)
    else:
        show_sweep(found, request.file)
    return 0 if found.state == "finished" else 130


def show_sweep(found: SweepResult, file: str) -> None:
    """Print the trials, the best first, and how to run that one."""
    numbers = ranked(
        {t.number: nan if t.score is None else t.score for t in found.trials}, found.higher_is_better
    )
    trials = {trial.number: trial for trial in found.trials}
    rows = [trial_row(trials[number]) for number in numbers]
    print_table(("trial", *found.overrides, "rounds", found.metric, "ε"), rows, "no trial was played")
    say(f"all trials together: {privacy_line(found.privacy)}")
    sets = " ".join(f"--set {path}={toml_value(value)}" for path, value in found.overrides.items())
    say(f"best: hedgerow simulate {file} {sets}")
    say(f"files: {found.folder}")
