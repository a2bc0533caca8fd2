"""``python -m hedgerow.simulations.kernel.measure``: how fast the kernels train, beside a plain PyTorch loop on the same thread.

Contestants take turns on the same devices, and each one's best turn counts, in processor time of this thread: what else the
machine does shows little. Floating point operations are those of the gemms, forward and backward (not towards the input).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hedgerow.edge_agent.trainer.flat import FlatParameters
from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipe import Recipe, find_recipe
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.kernel.make import make_kernel
from hedgerow.simulations.kernel.network import Conv, Dense, Network, read_network
from hedgerow.simulations.kernel.plain_loop import PlainLoop
from hedgerow.simulations.kernel.protocol import KernelName, LocalJob
from hedgerow.simulations.kernel.threads import keep_to_one_thread

RECIPES = ("image-cnn", "digits-cnn", "anomaly-autoencoder", "mlp")
KERNELS: tuple[KernelName, ...] = ("explicit", "stacked")


def example_flop(network: Network) -> float:
    """Return floating point operations that one example costs, forward and backward."""
    total, seen = 0.0, False
    for layer in network.layers:
        if isinstance(layer, Dense | Conv):
            forward = 2.0 * (
                layer.inputs * layer.outputs
                if isinstance(layer, Dense)
                else layer.taps * layer.filters * layer.out[0] * layer.out[1]
            )
            total += forward * (3 if seen else 2)
            seen = True
    return total


def make_jobs(recipe: Recipe, parameters: dict[str, Any], sizes: Sequence[int], seed: int) -> list[LocalJob]:
    """Return one job for each size, random examples, from the recipe's own untrained model."""
    rng = np.random.default_rng(seed)
    model = FlatParameters(recipe.build(parameters)).values()
    shape = recipe.input_spec(parameters).shape
    jobs = []
    for device, n in enumerate(sizes):
        x = rng.standard_normal((n, *shape), dtype=np.float32)
        y = None
        if recipe.task == "classification":
            y = rng.integers(0, recipe.output_spec(parameters).shape[-1], n)
        jobs.append(LocalJob(model, x, y, (seed, 1, device)))
    return jobs


def as_private(jobs: Sequence[LocalJob], batch_size: int) -> list[LocalJob]:
    """Return the jobs with DP-SGD: clip 1, noise 1, as many steps as an epoch has, of the same expected size."""
    made = []
    for number, job in enumerate(jobs):
        steps = -(-len(job.x) // batch_size)
        plan = StepPlan(min(1.0, batch_size / len(job.x)), 1.0, 1.0, steps)
        made.append(job._replace(private=plan, noise_key=(1, number)))
    return made


def best_turns(turns: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Return each one's least processor seconds, taking turns for about ``seconds`` after one turn to get warm."""
    for turn in turns.values():
        turn()
    best = dict.fromkeys(turns, float("inf"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, turn in turns.items():
            start = time.thread_time()
            turn()
            best[name] = min(best[name], time.thread_time() - start)
    return best


def measure(name: str, n_jobs: int, batch_size: int, seconds: float, kernels: Sequence[KernelName]) -> str:
    """Return a table for one recipe: microseconds a step, GFLOP/s, times as fast as the plain loop."""
    recipe = find_recipe(name)
    parameters = recipe.check({})
    training = TrainingSpec(batch_size=batch_size, learning_rate=0.05)
    sizes = [int(n) for n in np.linspace(batch_size, 9 * batch_size, n_jobs)]
    jobs = make_jobs(recipe, parameters, sizes, 3)
    private = as_private(jobs, batch_size)
    out = np.empty((len(jobs), len(jobs[0].model)), np.float32)
    loop = PlainLoop(recipe, parameters, training)
    turns: dict[str, Callable[[], object]] = {"plain loop": partial(loop.train, jobs, out)}
    for kernel_name in kernels:
        try:
            kernel = make_kernel(kernel_name, recipe, parameters, training)
        except HedgerowError:
            continue
        turns[kernel_name] = partial(kernel.train, jobs, out)
        turns[f"{kernel_name} DP"] = partial(kernel.train, private, out)
    best = best_turns(turns, seconds)
    steps = sum(-(-n // batch_size) for n in sizes)
    network = read_network(recipe.build(parameters), tuple(recipe.input_spec(parameters).shape))
    flop = example_flop(network) * sum(sizes)
    rows = [f"{name}: {network.n_parameters} parameters, {flop / sum(sizes) / 1e6:.2f} MFLOP an example"]
    for turn, used in best.items():
        ratio = best["plain loop"] / used
        rows.append(f"  {turn:14}{1e6 * used / steps:9.0f} µs{flop / used / 1e9:8.1f} GFLOP/s{ratio:8.2f} ×")
    return "\n".join(rows)


def main() -> int:
    """Print the table of each recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--jobs", type=int, default=20, help="devices trained together")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="per recipe")
    parser.add_argument("--kernels", nargs="*", default=KERNELS)
    chosen = parser.parse_args()
    keep_to_one_thread()
    for name in chosen.recipes:
        table = measure(name, chosen.jobs, chosen.batch, chosen.seconds, chosen.kernels)
        sys.stdout.write(table + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
