"""``hedgerow bench simulation``: rounds of ours beside a plain PyTorch loop, Flower on Ray and pfl-research in one run.

All engines get the same data, partition, cohorts, batches and first model; their models after two rounds are compared. They
then run the same rounds in turns, one at work at a time, so that load on the machine hits all alike. The floor is what the
machine's float32 products, measured in between, would take for the operations of a round. Peak memory is the proportional set
size of an engine's processes in rounds that are not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.bench.simulation_run.engines import ENGINES, Starter
from hedgerow.simulations.bench.simulation_run.figures import all_met, rows_of, starts_of
from hedgerow.simulations.bench.simulation_run.flops import task_flops_per_sample
from hedgerow.simulations.bench.simulation_run.growth import growth_lines, measure_growth
from hedgerow.simulations.bench.simulation_run.table import table
from hedgerow.simulations.bench.simulation_run.turns import running, tell
from hedgerow.simulations.bench.simulation_run.workloads import WORKLOADS, Workload, make_task

_FAMILIES = tuple(dict.fromkeys(workload.family for workload in WORKLOADS.values()))
_QUICK = ("digits-10", "mlp-10")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(
        prog="hedgerow bench simulation",
        description=__doc__.splitlines()[0],
        epilog="example: hedgerow bench simulation --workloads digits-10,mlp --peers plain,flower --json",
    )
    options.add_argument(
        "--workloads", help=f"of {', '.join(WORKLOADS)}, or a family as {_FAMILIES[0]} (default: all)"
    )
    options.add_argument(
        "--rounds", type=int, default=3, help="turns of each engine per workload (default 3)"
    )
    options.add_argument(
        "--peers", help=f"of {', '.join(list(ENGINES)[1:])} (default: all that can be started)"
    )
    options.add_argument(
        "--dp", action=argparse.BooleanOptionalAction, help="with DP-SGD alone, or without it alone"
    )
    options.add_argument("--workers", type=int, default=2, help="processes of every engine (default 2)")
    options.add_argument(
        "--pfl-python", type=Path, help="the interpreter of an environment with pfl and torch"
    )
    options.add_argument(
        "--memory", action="store_true", help="measure the growth of memory with the population instead"
    )
    options.add_argument("--quick", action="store_true", help=f"{' and '.join(_QUICK)} alone, one turn")
    options.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    return options


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every workload asked for. Raises ConfigError for an unknown workload or peer."""
    workloads = chosen(args)
    starter = Starter(args.workers, args.pfl_python)
    names = starter.names(_listed(args.peers, list(ENGINES), "--peers"))
    variants = [False, True] if args.dp is None else [args.dp]
    repeats = 1 if args.quick else args.rounds
    found: list[dict[str, Any]] = []
    starts: list[dict[str, Any]] = []
    for family in dict.fromkeys(workload.family for workload in workloads):
        mine = [workload for workload in workloads if workload.family == family]
        tell(f"making the data of {family}")
        task = make_task(family)
        flops = task_flops_per_sample(task)
        with (
            tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as folder,
            running(task, Path(folder), starter, names, mine[0].cohort) as engines,
        ):
            for workload in mine:
                found += [
                    rows_of(engines.measure(workload, private, repeats), task, flops) for private in variants
                ]
            starts.append(starts_of(family, engines.first_round_s, engines.errors))
    result = {"bench": "simulation", "workers": args.workers, "workloads": found, "starts": starts}
    return {**result, "met": all_met(result)}


def chosen(args: argparse.Namespace) -> list[Workload]:
    """Return the workloads asked for, by name or family, in their own order. Raises ConfigError for an unknown one."""
    wanted = _listed(args.workloads, [*WORKLOADS, *_FAMILIES], "--workloads")
    if wanted is None:
        wanted = list(_QUICK) if args.quick else list(WORKLOADS)
    return [each for each in WORKLOADS.values() if each.name in wanted or each.family in wanted]


def _listed(text: str | None, known: Sequence[str], option: str) -> list[str] | None:
    if text is None:
        return None
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ConfigError(f"{option}: no {', '.join(unknown) or 'name given'}; there are {', '.join(known)}")
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it. Exit codes: 0 measured (met or not), 1 failed, 2 wrong usage."""
    options = parser()
    args = options.parse_args(argv)
    if not 1 <= args.rounds <= 100 or not 1 <= args.workers <= 64:
        options.error("--rounds must be from 1 to 100, --workers from 1 to 64")
    if args.memory:
        result = measure_growth(args.workers, quick=args.quick)
        sys.stdout.write(growth_lines(result) + "\n")
    else:
        result = run(args)
        sys.stdout.write(table(result) + "\n")
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
