"""``hedgerow bench inference``: what ``Runtime.infer`` costs over the bare engine, in one interleaved run."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.inference.bundle_folder import BundleFolder, read_bundle
from hedgerow.edge_agent.inference.runtime import open_runtime
from hedgerow.models.workbench.client import Workbench
from hedgerow.models.workbench.messages import PackageRequest
from hedgerow.shared.bundle import Artefact, PrivacyReport
from hedgerow.shared.errors import ContentError
from hedgerow.shared.job import GateSpec
from hedgerow.simulations.bench.bare_engines import bare_call

Numbers = npt.NDArray[np.int64]

RECIPES: Final = ("anomaly-autoencoder", "digits-cnn")
WANTED_RATIO: Final = 1.15
WARM_UP: Final = 200
_PRIVACY = PrivacyReport(
    "none", "", "", "", None, None, "", "", (), (), ("an untrained model, to measure latency",)
)
_GATE = GateSpec(min_agreement=0.0, max_metric_drop=1e9, max_latency_us=1e9, max_artefact_bytes=2**40)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return a row per model, engine and precision: p50 and p99 of both calls in us, and their ratios.

    ``args.calls`` calls each, taken in turns in an order drawn by ``args.seed``. Models are the recipes' own with
    untrained values, exported and quantised as for delivery.
    """
    rng = np.random.default_rng(args.seed)
    rows = []
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as folder:
        for bundle in asyncio.run(_bundles(Path(folder), args.seed)):
            rows += [_row(bundle, artefact, args.calls, rng) for artefact in bundle.manifest.artefacts]
    worst = max(row["ratio_p50"] for row in rows)
    return {
        "bench": "inference",
        "calls": args.calls,
        "rows": rows,
        "worst_ratio_p50": worst,
        "wanted_ratio_p50": WANTED_RATIO,
        "met": worst <= WANTED_RATIO,
    }


async def _bundles(folder: Path, seed: int) -> list[BundleFolder]:
    bench = Workbench()
    try:
        return [await _bundle(bench, folder / recipe, recipe, seed) for recipe in RECIPES]
    finally:
        await bench.close()


async def _bundle(bench: Workbench, folder: Path, recipe: str, seed: int) -> BundleFolder:
    model = await bench.initial(recipe, {}, seed)
    result = await bench.package(
        PackageRequest("bench", "bench", 0, recipe, {}, model, recipe, 1, _PRIVACY, str(folder), gate=_GATE)
    )
    if not result.accepted:
        raise ContentError(f"{recipe} cannot be packaged: {'; '.join(result.refusals)}")
    return read_bundle(folder)


def _row(bundle: BundleFolder, artefact: Artefact, calls: int, rng: np.random.Generator) -> dict[str, Any]:
    shape, output = bundle.manifest.input.shape, bundle.manifest.output.shape
    path = bundle.verified(artefact)
    x = np.frombuffer(bundle.manifest.golden[0].input, "<f4").reshape((1, *shape)).copy()
    runtime = open_runtime(artefact.runtime, path, artefact.precision, shape, output)
    bare = bare_call(artefact.runtime, path, x, output)
    infer = runtime.infer
    ours_ns, bare_ns = _interleaved(lambda: infer(x), bare, calls, rng)
    runtime.close()
    (ours_p50, ours_p99), (bare_p50, bare_p99) = _percentiles(ours_ns), _percentiles(bare_ns)
    return {
        "recipe": bundle.manifest.recipe,
        "runtime": artefact.runtime,
        "precision": artefact.precision,
        "infer_p50_us": ours_p50,
        "infer_p99_us": ours_p99,
        "bare_p50_us": bare_p50,
        "bare_p99_us": bare_p99,
        "ratio_p50": round(ours_p50 / bare_p50, 3),
        "ratio_p99": round(ours_p99 / bare_p99, 3),
    }


def _interleaved(
    ours: Callable[[], object], bare: Callable[[], object], calls: int, rng: np.random.Generator
) -> tuple[Numbers, Numbers]:
    """Return nanoseconds of ``calls`` calls each, the two taking turns in random order, so that noise hits both."""
    for _ in range(WARM_UP):
        ours()
        bare()
    taken = np.empty((2, calls), np.int64)
    ours_first = rng.random(calls) < 0.5
    gc.collect()
    for n in range(calls):
        for which in (0, 1) if ours_first[n] else (1, 0):
            call = bare if which else ours
            start = time.perf_counter_ns()
            call()
            taken[which, n] = time.perf_counter_ns() - start
    return taken[0], taken[1]


def _percentiles(taken_ns: Numbers) -> tuple[float, float]:
    p50, p99 = np.percentile(taken_ns, [50, 99]) / 1000
    return round(float(p50), 3), round(float(p99), 3)


def table(result: dict[str, Any]) -> str:
    """Return the result as text for people."""
    head = f"{'model':<20} {'engine':<12} {'precision':<9} {'infer p50':>10} {'p99':>8} {'bare p50':>10} {'p99':>8} {'ratio':>6}"
    lines = [head]
    for row in result["rows"]:
        lines.append(
            f"{row['recipe']:<20} {row['runtime']:<12} {row['precision']:<9} {row['infer_p50_us']:>10.2f} "
            f"{row['infer_p99_us']:>8.2f} {row['bare_p50_us']:>10.2f} {row['bare_p99_us']:>8.2f} "
            f"{row['ratio_p50']:>6.2f}"
        )
    verdict = "met" if result["met"] else "not met"
    lines.append(f"worst ratio {result['worst_ratio_p50']:.2f}; wanted at most {WANTED_RATIO}: {verdict}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    made = argparse.ArgumentParser(
        prog="hedgerow bench inference",
        description="Measure Runtime.infer against the bare engine, float and int8, ONNX Runtime and LiteRT.",
        epilog="example: hedgerow bench inference --calls 5000 --json",
    )
    made.add_argument("--calls", type=int, default=5000, help="calls of each kind per row (default 5000)")
    made.add_argument("--seed", type=int, default=0, help="seed of the models and of the order of calls")
    made.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it. Exit codes: 0 measured (met or not), 2 wrong usage."""
    options = parser()
    args = options.parse_args(argv)
    if not 1 <= args.calls <= 10_000_000:
        options.error("--calls must be from 1 to 10000000")
    result = run(args)
    sys.stdout.write(table(result) + "\n")
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
