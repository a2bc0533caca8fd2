"""``hedgerow bench aggregation``: many large updates through the gateway at once; how far the server's memory rises.

The server is this process: gateway, link, round loop and aggregator; devices are a few other processes, each with many
connections that all want to upload at once. Counted is the kernel's peak of resident memory over the round, the job's
own model included, in copies of the model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hedgerow.server.flower import LinkConfig
from hedgerow.simulations.bench.bed import Bed
from hedgerow.simulations.bench.jobbed import run_job
from hedgerow.simulations.bench.memory import PeakGrowth
from hedgerow.simulations.bench.rounds import device_command

WANTED_COPIES = 5.0


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(
        prog="hedgerow bench aggregation",
        description="memory of a round with many large updates",
        epilog="example: hedgerow bench aggregation --updates 20 --json",
    )
    options.add_argument("--updates", type=int, default=100, help="devices, one update each (default 100)")
    options.add_argument(
        "--values", type=int, default=10_000_000, help="float32 values a model (default 10 million)"
    )
    options.add_argument("--senders", type=int, default=4, help="processes that send (default 4)")
    options.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    return options


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return peak growth in bytes and in model copies, and the round's duration and rate."""
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as folder:
        growth, duration_s = asyncio.run(_round(Path(folder), args.updates, args.values, args.senders))
    copies = growth / (4 * args.values)
    return {
        "bench": "aggregation",
        "updates": args.updates,
        "values": args.values,
        "senders": args.senders,
        "peak_growth_bytes": growth,
        "peak_growth_copies": round(copies, 2),
        "wanted_copies": WANTED_COPIES,
        "duration_s": round(duration_s, 2),
        "mb_per_s": round(4e-6 * args.values * args.updates / duration_s, 1),
        "met": copies <= WANTED_COPIES,
    }


async def _round(folder: Path, updates: int, values: int, senders: int) -> tuple[int, float]:
    bed = Bed(folder)
    devices = [f"device-{index}" for index in range(updates)]
    for device in devices:
        bed.identity(device)
    config = LinkConfig(max_inflight_bytes=min(LinkConfig().max_inflight_bytes, int(6.4 * values)))
    async with bed.serve(config) as (link, url):
        processes: list[subprocess.Popen[bytes]] = []
        try:
            await link.open_job("bench")
            for index in range(senders):
                homes = [folder / device for device in devices[index::senders]]
                processes.append(subprocess.Popen(device_command(url, "bench", values, homes, "--no-fetch")))
            await link.wait_online("bench", updates, 300.0)
            peak, begun = PeakGrowth(), time.monotonic()
            await run_job(link, folder, "bench", devices, n=values, rounds=1)
            return peak.bytes_, time.monotonic() - begun
        finally:
            for process in processes:
                await asyncio.to_thread(_ended, process)


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def table(result: dict[str, Any]) -> str:
    """Return the result as lines for a person."""
    return (
        f"{result['updates']} updates of {result['values']} float32 values from {result['senders']} processes: "
        f"memory rose by {result['peak_growth_copies']} model copies (wanted at most {result['wanted_copies']:.0f}), "
        f"{result['duration_s']} s, {result['mb_per_s']} MB/s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it. Exit codes: 0 measured (met or not), 2 wrong usage."""
    options = parser()
    args = options.parse_args(argv)
    if not 1 <= args.updates <= 1000 or not 1 <= args.values <= 50_000_000 or not 1 <= args.senders <= 32:
        options.error("--updates from 1 to 1000, --values from 1 to 50000000, --senders from 1 to 32")
    result = run(args)
    sys.stdout.write(table(result) + "\n")
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
