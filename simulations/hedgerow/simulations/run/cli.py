"""``hedgerow simulate``: try a scenario on this machine, compare runs, list the scenarios that come along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hedgerow.server.cli.output import run_app, say

app = typer.Typer(
    help="Try a scenario on this machine.", rich_markup_mode=None, pretty_exceptions_enable=False
)
beside = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
BESIDE = ("compare", "list")


@app.command(epilog="Example: hedgerow simulate digits-non-iid --set job.training.learning_rate=0.1")
def simulate(
    *,
    file: Annotated[
        str, typer.Argument(help="A scenario in TOML, or the name of one that comes along (`simulate list`).")
    ],
    engine: Annotated[
        str | None, typer.Option(help="lean (default), flower or fleet, instead of the scenario's.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How many rounds, instead of the job's.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many processes train (default: one per core).")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The scenario's seed, instead of its own.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where results go (default: runs/NAME-TIME).")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted run (the newest, or that in --folder)."),
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(
            help="A run's folder: take the kernel it chose by timing, so that the same scenario gives the same model."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="PATH=VALUE: change a field, as often as wanted.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Search the scenario's [sweep] fields by successive halving.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object on the last line.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    print_job: Annotated[
        bool, typer.Option("--print-job", help="Print the job in TOML, for `hedgerow job submit`, and stop.")
    ] = False,
) -> int:
    """Simulate a federated training: progress on standard error, a table at the end, files in a folder.

    `hedgerow simulate list` shows the scenarios that come along, `hedgerow simulate compare A B` two results side by side.
    """
    # What a run needs is imported late: help must be quick.
    from hedgerow.simulations.run import command

    overrides: list[str] = [*(changes or ()), *([] if seed is None else [f"seed={seed}"])]
    if print_job:
        return command.print_job(file, overrides, rounds)
    request = command.Request(
        file, engine, rounds, workers, folder, resume, tuple(overrides), json=json, quiet=quiet, like=like
    )
    return command.sweep(request) if sweep else command.simulate(request)


@beside.command("list", epilog="Example: hedgerow simulate list")
def list_scenarios(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> int:
    """List the scenarios that come with the project."""
    from hedgerow.simulations.run import command

    return command.list_scenarios(json)


@beside.command(epilog="Example: hedgerow simulate compare runs/a runs/b")
def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder or its results.json.")],
    second: Annotated[Path, typer.Argument(help="Another's.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> int:
    """Set two results side by side: scenario, score, ε, bytes and time."""
    from hedgerow.simulations.run import command

    return command.compare(first, second, json)


def main(arguments: list[str]) -> int:
    """Run ``hedgerow simulate``."""
    if not arguments:
        say("usage: hedgerow simulate FILE [OPTIONS]; hedgerow simulate --help tells more")
        return 2
    if arguments[0] in BESIDE:
        return run_app(beside, "simulate", arguments)
    return run_app(app, "simulate", arguments)
