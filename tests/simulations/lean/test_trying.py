"""Kernels that crash natively: they end a process of their own, the run takes another kernel, or says what is at fault."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from tests.support.simulation_lean import batch, make_scenario, tasks, tiny_population
from tests.support.tiny_recipe import RECIPE as TINY
from tests.support.tiny_recipe import TinyRecipe

from hedgerow.models.recipe import find_recipe
from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.job import TrainingSpec
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Answer
from hedgerow.simulations.kernel.choose import read_choice
from hedgerow.simulations.kernel.explicit import ExplicitKernel
from hedgerow.simulations.kernel.protocol import LocalJob
from hedgerow.simulations.kernel.stacked import StackedKernel
from hedgerow.simulations.lean.choosing import choose
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.lean.trying import Trial, in_words

COUNTS = (6, 11, 2, 3)
MODEL = np.array([0.3, -0.2, 0.1, 0.05], np.float32)
SPEC = TrainingSpec(batch_size=4, learning_rate=0.05)


def ended_by(number: int) -> None:
    """End this process by a signal, without Python's own report of where it was."""
    faulthandler.disable()
    os.kill(os.getpid(), number)


class _Crash(torch.autograd.Function):
    """Nothing forward; backward its process is ended as by a fault in a native library, as often as a file says."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, file: str) -> torch.Tensor:
        ctx.file = file
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        left = int(Path(ctx.file).read_text())
        if left:
            Path(ctx.file).write_text(str(left - 1))
            ended_by(signal.SIGSEGV)
        return gradients[0], None


class CrashingRecipe(TinyRecipe):
    """The tiny recipe, ``times`` of whose backward passes end their process by SIGSEGV."""

    name = "crashing"

    def __init__(self, folder: Path, times: int) -> None:
        self._file = folder / "left"
        self._file.write_text(str(times))

    def loss(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        losses: torch.Tensor = _Crash.apply(super().loss(module, x, y), str(self._file))  # type: ignore[no-untyped-call]
        return losses


def trained(recipe: TinyRecipe, **choices: str) -> tuple[dict[str, str], Answer]:
    """Return the choice of an engine with one worker, and what a round came to."""
    with LeanEngine(
        make_scenario("tiny", 4), recipe, tiny_population(COUNTS), workers=1, choices=choices
    ) as engine:
        return engine.open(), engine.train(batch(MODEL, tasks(range(4))))


def children() -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


@pytest.mark.parametrize(
    ("times", "kernel", "skipped"),
    [
        (0, None, None),
        (1, "stacked:4", "explicit by SIGSEGV"),
        (2, "reference:1", "explicit by SIGSEGV, stacked by SIGSEGV"),
    ],
)
def test_a_kernel_that_crashes_is_skipped_and_another_trains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, times: int, kernel: str | None, skipped: str | None
) -> None:
    with caplog.at_level(logging.WARNING):
        choice, answer = trained(CrashingRecipe(tmp_path, times))

    assert kernel is None or choice["kernel"] == kernel
    assert choice.get("skipped") == skipped
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == times
    assert all("recipe crashing: kernel" in one and "SIGSEGV" in one for one in said)
    _, honest = trained(TINY, kernel=choice["kernel"])
    np.testing.assert_allclose(answer.total, honest.total, rtol=1e-5, atol=1e-7)


def test_a_recipe_that_always_crashes_is_named_and_this_process_lives(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^recipe crashing: .*SIGSEGV, with the reference kernel too"):
        trained(CrashingRecipe(tmp_path, 1000))
    assert children() == []


def test_a_kernel_that_crashes_in_training_alone_is_skipped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StackedKernel, "train", lambda *_: ended_by(signal.SIGBUS))
    choice, _ = trained(TINY)
    assert (choice["kernel"], choice["skipped"]) == ("explicit:1", "stacked by SIGBUS")

    monkeypatch.setattr(ExplicitKernel, "train", lambda *_: os._exit(3))
    choice, _ = trained(TINY)
    assert choice["kernel"] == "reference:1"
    assert choice["skipped"] == "explicit by exit code 3, stacked by SIGBUS"


def test_what_was_skipped_stays_in_the_record_of_a_run_that_goes_on(tmp_path: Path) -> None:
    first, _ = trained(CrashingRecipe(tmp_path, 1))
    second, _ = trained(CrashingRecipe(tmp_path, 0), **first)
    assert second == first


def test_a_recorded_kernel_that_crashes_now_is_an_error_that_says_how(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="kernel explicit ended its process by SIGSEGV"):
        trained(CrashingRecipe(tmp_path, 1000), kernel="explicit:1")


def test_what_a_recipe_raises_when_it_is_tried_is_told_with_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(*_: object) -> None:
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(ExplicitKernel, "train", wrong)
    with pytest.raises(
        EngineError, match=r"^recipe tiny: kernel explicit:1, .*ZeroDivisionError: no such thing"
    ):
        trained(TINY)


def test_a_recipe_for_the_reference_alone_is_tried_before_the_run() -> None:
    scenario, population = make_scenario("tiny", 4), tiny_population(COUNTS)
    chosen = choose(TINY, TINY.check({"layer": "norm"}), scenario, population, {}, apart=True)
    assert (chosen.kernel.name, chosen.skipped) == ("reference", "")


def test_the_choice_is_that_of_timing_here() -> None:
    scenario, population = make_scenario("tiny", 4), tiny_population(COUNTS)
    here = choose(TINY, {}, scenario, population, {})
    apart = choose(TINY, {}, scenario, population, {}, apart=True)
    assert {here.kernel.name, apart.kernel.name} <= {"explicit", "stacked"}


def test_processes_for_trials_end_and_a_skipped_kernel_is_not_asked_again(tmp_path: Path) -> None:
    recipe = find_recipe("mlp")
    parameters = recipe.check({})
    size = sum(p.numel() for p in recipe.build(parameters).parameters())
    x = np.zeros((3, *recipe.input_spec(parameters).shape), np.float32)
    job = LocalJob(np.zeros(size, np.float32), x, np.zeros(3, np.int64), (1, 1, 1))
    with Trial(recipe, parameters, SPEC, [job]) as trial:
        assert 0 < trial.seconds_a_step(read_choice("explicit:1"), 1, 0.01) < 60
        assert len(children()) == 1
        children()[0].send_signal(signal.SIGKILL)
        with pytest.raises(UnsupportedError, match="ended its process by SIGKILL"):
            trial.seconds_a_step(read_choice("stacked:2"), 1, 0.01)
        with pytest.raises(UnsupportedError, match="stacked ended its process before"):
            trial.must_make(read_choice("stacked:8"))
        trial.must_make(read_choice("explicit:1"))
        assert in_words(trial.skipped) == "stacked by SIGKILL"
    assert children() == []
