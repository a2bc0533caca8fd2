"""``hedgerow bench skab-select``: choose the options of detection from normal rows and planted faults, without labels.

It prints what it chooses and what that reached on planted faults; the shipped job holds the same options, by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hedgerow.models.recipe import find_recipe
from hedgerow.shared.job import Job
from hedgerow.shared.profile import read_profile
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.bench.selection.replays import LONG, long_family, short_family
from hedgerow.simulations.bench.selection.search import SECOND, Candidate, Options, Search, choose
from hedgerow.simulations.bench.selection.statistics import FAULTS, planted
from hedgerow.simulations.bench.skab_files import find_files
from hedgerow.simulations.configs import configs_folder


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return the choice, what it reached, what was second, and what the job's present options reach beside it."""
    start = time.monotonic()
    profile = read_profile(args.profile)
    job = read_toml(args.job, Job)
    recipe = find_recipe(job.recipe)
    families = [short_family(find_files(args.folders), profile)]
    if args.anomaly_free is not None:
        families.append(long_family(args.anomaly_free, profile))
    slow = recipe.check(job.parameters)["slow"]
    among = [n for n, name in enumerate(profile.channels) if name not in slow]
    search = Search(recipe, job, profile, [planted(family, among, args.faults) for family in families])
    checked = recipe.check(job.parameters)
    present = msgspec.convert({name: checked[name] for name in Options.__struct_fields__}, Options)
    earlier, base = ([], SECOND) if args.last_step else _first_steps(search)
    threes = search.step_three(base)
    chosen, limit = choose(threes, LONG)
    stats = [per[present.memory_rows] for per in search.network(present, (present.memory_rows,))]
    return {
        "bench": "skab-select",
        "replays": {family.name: len(family.rest) for family in families},
        "candidates": len(earlier) + len(threes),
        "first_steps": msgspec.to_builtins(base),
        "chosen": {**_told(chosen), "far_limit_percent": limit},
        "largest_f1": _told(max(threes, key=lambda one: one.f1(LONG))),
        "job": _told(search.evaluate([present], stats)[0]),
        "seconds": round(time.monotonic() - start, 1),
    }


def _first_steps(search: Search) -> tuple[list[Candidate], Options]:
    """Return the candidates of the first two steps and the options that they choose."""
    ones = search.step_one()
    twos = search.step_two(choose(ones)[0].options)
    return ones + twos, choose(twos)[0].options


def main(argv: Sequence[str]) -> int:
    """Run the selection from the command line; ``--json`` prints one object on the last line."""
    args = _parser().parse_args(list(argv))
    result = run(args)
    sys.stdout.write(json.dumps(result) + "\n" if args.json else _table(result))
    return 0


def _told(candidate: Candidate) -> dict[str, Any]:
    families = {
        name: {
            "f1": [round(value, 4) for value in judged.f1],
            "far_percent": [round(value, 2) for value in judged.far_percent],
        }
        for name, judged in candidate.families.items()
    }
    return {
        "options": msgspec.to_builtins(candidate.options),
        "planted_f1": round(candidate.f1(LONG), 4),
        "far_percent": round(candidate.far(), 2),
        "families": families,
    }


def _table(result: dict[str, Any]) -> str:
    lines = [f"{result['candidates']} candidates; F1 over planted faults, FAR without a fault"]
    for name in ("chosen", "largest_f1", "job"):
        told = result[name]
        lines.append(f"{name:12} F1 {told['planted_f1']:.3f}  FAR {told['far_percent']:.1f} %")
    lines.append("chosen:")
    lines += [f"  {name} = {value}" for name, value in result["chosen"]["options"].items()]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hedgerow bench skab-select",
        description="Choose the options of anomaly detection from normal rows and planted faults; no label is read.",
        epilog="example: hedgerow bench skab-select SKAB/valve1 --anomaly-free SKAB/anomaly-free.csv --json",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="recordings; of each the first 400 rows are read",
    )
    parser.add_argument(
        "--anomaly-free", type=Path, default=None, metavar="FILE", help="one long run without anomalies"
    )
    parser.add_argument("--faults", type=int, default=FAULTS, help="planted faults a replay")
    parser.add_argument(
        "--last-step", action="store_true", help="begin with what the first two steps chose on SKAB"
    )
    configs = configs_folder()
    parser.add_argument("--job", type=Path, default=configs / "jobs" / "skab-anomaly.toml", help="job file")
    parser.add_argument("--profile", type=Path, default=configs / "profiles" / "skab.toml", help="profile")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
