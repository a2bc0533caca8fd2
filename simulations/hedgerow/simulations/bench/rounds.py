"""``hedgerow bench rounds``: a federated round over TLS with two device processes, beside stock Flower in the same run.

Both exchange the same: a model out, an update of its size back, two nodes, no training. Ours runs the real round loop
(SQLite, checkpoint each round) behind the device gateway with mutual TLS; stock Flower runs insecure, as its command
line starts it. The first rounds of both are left out: processes start in them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hedgerow.simulations.bench.bed import Bed
from hedgerow.simulations.bench.jobbed import run_job
from hedgerow.simulations.bench.stock_flower import stock_flower

EMPTY_VALUES = 16
TEN_MB_VALUES = 2_500_000
WANTED = {"empty": 20.0, "10 MB": 10.0}
DEVICES = ("device-1", "device-2")
_WARM_ROUNDS = 3


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(
        prog="hedgerow bench rounds",
        description=__doc__.splitlines()[0],
        epilog="example: hedgerow bench rounds --rounds 100 --json",
    )
    options.add_argument("--rounds", type=int, default=50, help="rounds of ours per model (default 50)")
    options.add_argument(
        "--stock-rounds", type=int, default=3, help="rounds of stock Flower per model (default 3)"
    )
    options.add_argument("--no-stock", action="store_true", help="measure ours alone; no ratio then")
    options.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    return options


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return a row per model: p50 and p99 of our rounds in ms, stock's p50 in ms, and the ratio."""
    rows = []
    sizes = {"empty": EMPTY_VALUES, "10 MB": TEN_MB_VALUES}
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as folder:
        ours = {
            name: asyncio.run(_ours(Path(folder) / f"ours-{n}", n, args.rounds)) for name, n in sizes.items()
        }
        stock: dict[str, list[float]] = {}
        if not args.no_stock:
            home = Path(folder) / "stock"
            home.mkdir()
            with stock_flower(home) as flower:
                stock = {name: flower.rounds_s(n, args.stock_rounds) for name, n in sizes.items()}
    for name in sizes:
        rows.append(_row(name, ours[name], stock.get(name, [])))
    met = all(row["ratio"] is not None and row["ratio"] >= row["wanted_ratio"] for row in rows)
    return {"bench": "rounds", "devices": len(DEVICES), "rows": rows, "met": met}


def _row(name: str, ours: list[float], stock: list[float]) -> dict[str, Any]:
    p50 = statistics.median(ours)
    stock_p50 = statistics.median(stock) if stock else None
    return {
        "model": name,
        "rounds": len(ours),
        "p50_ms": round(1e3 * p50, 2),
        "p99_ms": round(1e3 * sorted(ours)[int(0.99 * (len(ours) - 1))], 2),
        "stock_rounds": len(stock),
        "stock_p50_ms": None if stock_p50 is None else round(1e3 * stock_p50, 1),
        "ratio": None if stock_p50 is None else round(stock_p50 / p50, 1),
        "wanted_ratio": WANTED[name],
    }


async def _ours(folder: Path, values: int, rounds: int) -> list[float]:
    folder.mkdir()
    bed = Bed(folder)
    async with bed.serve() as (link, url):
        processes = []
        try:
            await link.open_job("bench")
            for device in DEVICES:
                bed.identity(device)
                processes.append(subprocess.Popen(device_command(url, "bench", values, [folder / device])))
            times = await run_job(link, folder, "bench", DEVICES, n=values, rounds=rounds + _WARM_ROUNDS)
        finally:
            for process in processes:
                await asyncio.to_thread(_ended, process)
    commits = times.commits[_WARM_ROUNDS - 1 :]
    return [later - earlier for earlier, later in itertools.pairwise(commits)]


def device_command(url: str, job_id: str, values: int, homes: Sequence[Path], *options: str) -> list[str]:
    """Return the command of a process that answers rounds as the devices of ``homes``."""
    command = [sys.executable, "-m", "hedgerow.simulations.bench.echo_device", "--url", url, "--job", job_id]
    for home in homes:
        command += ["--home", str(home)]
    return [*command, "--values", str(values), *options]


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def table(result: dict[str, Any]) -> str:
    """Return the result as lines for a person."""
    lines = [f"{'model':<8}{'p50 ms':>10}{'p99 ms':>10}{'stock p50 ms':>14}{'ratio':>9}{'wanted':>8}"]
    for row in result["rows"]:
        stock = "-" if row["stock_p50_ms"] is None else f"{row['stock_p50_ms']:.0f}"
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.0f}x"
        lines.append(
            f"{row['model']:<8}{row['p50_ms']:>10.1f}{row['p99_ms']:>10.1f}{stock:>14}{ratio:>9}{row['wanted_ratio']:>7.0f}x"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it. Exit codes: 0 measured (met or not), 2 wrong usage."""
    options = parser()
    args = options.parse_args(argv)
    if not 2 <= args.rounds <= 9_000 or not 1 <= args.stock_rounds <= 100:
        options.error("--rounds must be from 2 to 9000, --stock-rounds from 1 to 100")
    result = run(args)
    sys.stdout.write(table(result) + "\n")
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
