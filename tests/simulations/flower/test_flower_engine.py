"""Flower on Ray trains what the lean engine trains, and leaves neither process nor file, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.simulation_lean import (
    SuddenRecipe,
    batch,
    copied,
    digits_population,
    killed_here,
    make_scenario,
    marked,
    plain_updates,
    strategy,
    tasks,
    tiny_population,
)

from hedgerow.edge_agent.trainer.flat import FlatParameters
from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.models.recipes.digits import RECIPE as DIGITS
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Attack, Batch, Engine, Vector
from hedgerow.simulations.flower.engine import FlowerEngine
from hedgerow.simulations.flower.processes import Member, family, is_alive
from hedgerow.simulations.flower.values import REFERENCE
from hedgerow.simulations.lean.engine import LeanEngine

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(300)]
COUNTS = [5, 9, 12, 4, 7, 20]
ROOT = Path(__file__).resolve().parents[3]
NOISELESS = StepPlan(0.5, 0.0, 1.0, 3)


def first_model() -> Vector:
    torch.manual_seed(7)
    return FlatParameters(DIGITS.build(DIGITS.check({}))).values()


@pytest.fixture(scope="module")
def flower() -> Iterator[FlowerEngine]:
    with FlowerEngine(
        make_scenario("digits-cnn", 6), DIGITS, digits_population(COUNTS, test=[2] * 6), workers=2
    ) as engine:
        engine.open()
        yield engine


def lean(**options: object) -> LeanEngine:
    engine = LeanEngine(
        make_scenario("digits-cnn", 6),
        DIGITS,
        digits_population(COUNTS, test=[2] * 6),
        workers=0,
        **options,  # type: ignore[arg-type]
    )
    engine.open()
    return engine


def two_rounds(engine: Engine, plan: StepPlan | None) -> Vector:
    model = first_model()
    for round in (1, 2):
        given = [
            task for d, n in enumerate(COUNTS) for task in tasks([d], round, weight=float(n), private=plan)
        ]
        answer = engine.train(batch(model, given))
        assert answer.count == len(COUNTS)
        model = (model + answer.total / answer.weight).astype(np.float32)
    return model


@pytest.mark.parametrize("plan", [None, NOISELESS], ids=["plain", "dp-without-noise"])
def test_two_rounds_come_to_what_lean_comes_to(flower: FlowerEngine, plan: StepPlan | None) -> None:
    with lean() as other:
        expected = two_rounds(other, plan)
    found = two_rounds(flower, plan)
    assert np.abs(expected - first_model()).max() > 1e-4
    assert np.abs(found - expected).max() <= 1e-5


def test_with_the_reference_kernel_the_sum_has_the_same_bits(flower: FlowerEngine) -> None:
    given = tasks(range(6), 3, weight=2.5, clip_norm_l2=0.05)
    with lean(choices=REFERENCE) as other:
        expected = other.train(batch(first_model(), given))
    found = flower.train(batch(first_model(), given))
    assert np.array_equal(found.total, expected.total)
    assert (found.weight, found.count) == (expected.weight, expected.count)
    assert [o.norm_l2 for o in found.outcomes] == [o.norm_l2 for o in expected.outcomes]


def test_the_sum_is_that_of_the_devices_own_trainers(flower: FlowerEngine) -> None:
    scenario, population = make_scenario("digits-cnn", 6), digits_population(COUNTS, test=[2] * 6)
    updates = plain_updates(DIGITS, scenario, population, first_model(), 2, [4, 1])
    answer = flower.train(batch(first_model(), tasks([4, 1], 2), want="each"))
    assert sorted(answer.updates) == [1, 4]
    for device, update in zip([4, 1], updates, strict=True):
        assert np.abs(answer.updates[device] - update).max() <= 1e-6
    assert np.abs(answer.total - np.sum(updates, axis=0, dtype=np.float64)).max() <= 1e-6


def test_tasks_from_several_models_are_each_trained_from_their_own(flower: FlowerEngine) -> None:
    models = [first_model(), first_model() * np.float32(0.5)]
    given = [*tasks([0], 1, version=0), *tasks([1], 1, version=1)]
    found = flower.train(Batch(models, given, "each"))
    with lean(choices=REFERENCE) as other:
        expected = other.train(Batch(models, given, "each"))
    assert all(np.array_equal(found.updates[d], expected.updates[d]) for d in (0, 1))


def test_a_falsified_update_is_rejected_and_named(flower: FlowerEngine) -> None:
    given = [*tasks([0], 1), *tasks([1], 1, attack=Attack("nan"))]
    answer = flower.train(batch(first_model(), given))
    assert [outcome.rejected for outcome in answer.outcomes] == [None, "non-finite"]
    assert answer.count == 1
    assert np.isfinite(answer.total).all()


def test_scores_are_leans(flower: FlowerEngine) -> None:
    with lean(choices=REFERENCE) as other:
        assert flower.score(first_model()) == other.score(first_model())
        found = flower.score_devices(first_model(), [0, 5], 1)
        assert np.array_equal(found.loss, other.score_devices(first_model(), [0, 5], 1).loss)


def test_opening_again_starts_nothing(flower: FlowerEngine) -> None:
    before = ray_processes()
    assert flower.open() == {**REFERENCE, "workers": "2"}
    assert before <= ray_processes()
    assert len([m for m in ray_processes() if is_driver(m)]) == len([m for m in before if is_driver(m)])


def test_a_task_that_makes_no_sense_is_refused(flower: FlowerEngine) -> None:
    with pytest.raises(ValueError, match="of 6 devices, 1 models"):
        flower.train(batch(first_model(), tasks([6])))


def test_scaffold_keeps_what_devices_keep_between_rounds() -> None:
    scenario = make_scenario("tiny", 4, strategy=strategy("scaffold"))
    recipe, population = SuddenRecipe.__mro__[1](), tiny_population([3, 5, 2, 6])
    model = FlatParameters(recipe.build({})).values()
    control = np.full_like(model, 0.01)
    found = []
    for kind in (FlowerEngine, LeanEngine):
        with kind(scenario, recipe, population, workers=1, choices=REFERENCE) as engine:
            engine.open()
            first = copied(engine.train(batch(model, tasks(range(4), 1), control=control)))
            second = engine.train(batch(model, tasks(range(4), 2), control=control))
            found.append((first, second))
    for ours, leans in zip(*found, strict=True):
        assert np.array_equal(ours.total, leans.total)
        assert np.abs(ours.control - leans.control).max() <= 1e-9
    assert not np.array_equal(found[0][0].total, found[0][1].total)


def test_an_actor_that_is_killed_costs_time_and_nothing_else(tmp_path: Path) -> None:
    recipe = SuddenRecipe(tmp_path / "armed", killed_here)
    scenario, population = make_scenario("tiny", 3), marked(tiny_population([3, 5, 2]), 1)
    model = FlatParameters(recipe.build({})).values()
    before = ray_processes()
    with FlowerEngine(scenario, recipe, population, workers=1) as engine:
        engine.open()
        found = engine.train(batch(model, tasks(range(3))))
        assert not (tmp_path / "armed").exists()
        with LeanEngine(scenario, recipe, population, workers=0, choices=REFERENCE) as other:
            other.open()
            expected = other.train(batch(model, tasks(range(3))))
    assert np.array_equal(found.total, expected.total)
    assert ray_processes() <= before


def test_what_a_recipe_raises_is_told(tmp_path: Path) -> None:
    recipe = SuddenRecipe(tmp_path / "armed", overheated, always=True)
    scenario, population = make_scenario("tiny", 3), marked(tiny_population([3, 5, 2]), 1)
    model = FlatParameters(recipe.build({})).values()
    before = ray_processes()
    with FlowerEngine(scenario, recipe, population, workers=1) as engine:
        engine.open()
        with pytest.raises(EngineError, match="the oven is too hot"):
            engine.train(batch(model, tasks(range(3))))
        again = engine.train(batch(model, tasks([0, 2])))
    assert again.count == 2
    assert ray_processes() <= before


def overheated() -> None:
    raise RuntimeError("the oven is too hot")


_PROGRAM = """
import sys
from tests.simulations.flower.test_flower_engine import *

if __name__ == "__main__":
    with FlowerEngine(make_scenario("digits-cnn", 6), DIGITS, digits_population(COUNTS), workers=1) as engine:
        engine.open()
        print("open", flush=True)
        while True:
            engine.train(batch(first_model(), tasks(range(6))))
            print("round", flush=True)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_neither_process_nor_file_is_left_however_a_run_ends(tmp_path: Path, end: signal.Signals) -> None:
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    if len(str(tmp_path)) > 40:
        environment.pop("TMPDIR")
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        assert process.stdout.readline() == "round\n"
        members = family(process.pid)
        assert len(members) > 3
        folders = open_folders(members)
        process.send_signal(end)
        process.wait(60)
        assert gone(members, 60), "processes are left"
        assert not [folder for folder in folders if folder.exists()]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def open_folders(members: list[Member]) -> set[Path]:
    """Return the engine's temporary folders, as the command lines of Ray's processes name them."""
    found: set[Path] = set()
    for member in members:
        words = Path(f"/proc/{member.pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        for word in words:
            for part in word.split("="):
                path = Path(part)
                found |= {each for each in [path, *path.parents] if each.name.startswith("hr-")}
    assert found
    return found


def gone(members: list[Member], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while any(is_alive(member) for member in members):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def ray_processes() -> set[Member]:
    """Return what this process has started and still runs."""
    return set(family(os.getpid()))


def is_driver(member: Member) -> bool:
    try:
        return b"flower.driver" in Path(f"/proc/{member.pid}/cmdline").read_bytes()
    except OSError:
        return False
