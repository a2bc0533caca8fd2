"""The seam between the loop and its engines: each engine has all of it, and what passes through comes out the same."""

from __future__ import annotations

import inspect
import pickle

import msgspec
import numpy as np
import pytest

from hedgerow.edge_agent.trainer.plan import StepPlan
from hedgerow.shared.errors import HedgerowError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Answer, Attack, Batch, DeviceScores, Engine, Outcome, Task
from hedgerow.simulations.flower.engine import FlowerEngine
from hedgerow.simulations.lean.engine import LeanEngine

METHODS = [name for name, value in vars(Engine).items() if not name.startswith("_") and callable(value)]


@pytest.mark.parametrize("engine", [LeanEngine, FlowerEngine])
@pytest.mark.parametrize("method", METHODS)
def test_every_engine_takes_and_gives_what_the_seam_says(engine: type, method: str) -> None:
    wanted, found = (inspect.signature(getattr(kind, method)) for kind in (Engine, engine))

    assert list(found.parameters) == list(wanted.parameters)
    for name, parameter in wanted.parameters.items():
        assert found.parameters[name].kind == parameter.kind
        assert found.parameters[name].annotation == parameter.annotation
    assert found.return_annotation == wanted.return_annotation


def test_the_seam_has_what_the_loop_uses_and_engines_have_names_of_their_own() -> None:
    assert set(METHODS) == {"open", "hold", "train", "score", "score_devices", "close"}
    assert (LeanEngine.name, FlowerEngine.name) == ("lean", "flower")


@pytest.mark.parametrize("engine", [LeanEngine, FlowerEngine])
def test_engines_are_used_as_context_managers_and_made_alike(engine: type) -> None:
    assert {"__enter__", "__exit__"} <= set(dir(engine))
    names = list(inspect.signature(engine).parameters)
    assert names[:3] == ["scenario", "recipe", "population"]
    assert {"workers", "choices"} <= set(names)


def test_a_task_passes_between_processes_whole() -> None:
    plan = StepPlan(**dict.fromkeys(StepPlan.__struct_fields__, 1))
    task = Task(3, 7, 1, 0.5, 2, plan, 1.5, Attack("scale", -3.0))

    assert pickle.loads(pickle.dumps(task)) == task
    with pytest.raises(AttributeError):
        task.weight = 2.0  # type: ignore[misc]


def test_a_plain_task_counts_once_and_does_nothing_special() -> None:
    task = Task(device=1, round=2)

    assert (task.version, task.weight, task.epochs, task.private, task.clip_norm_l2, task.attack) == (
        0, 1.0, None, None, None, None,
    )  # fmt: skip
    assert Batch([np.zeros(1, np.float32)], [task]).want == "sum"
    assert Outcome(1, 10, None, 0.0, 0, 0.0).rejected is None
    assert Answer(np.zeros(1), 0.0, 0, (), {}).control is None
    assert Attack("nan").scale == 1.0


def test_an_attack_of_no_known_kind_is_refused_when_read() -> None:
    with pytest.raises(msgspec.ValidationError, match="kind"):
        msgspec.convert({"kind": "flatter"}, Attack)
    assert msgspec.convert({"kind": "label-flip"}, Attack) == Attack("label-flip")


def test_scores_of_devices_keep_devices_and_numbers_side_by_side() -> None:
    scores = DeviceScores(np.array([3, 5]), np.array([0.5, 0.25]), np.array([1.0, np.nan]))

    assert [len(column) for column in scores] == [2, 2, 2]
    assert dict(zip(scores.devices.tolist(), scores.loss.tolist(), strict=True)) == {3: 0.5, 5: 0.25}


def test_what_an_engine_cannot_do_is_an_error_that_commands_tell_in_one_line() -> None:
    assert issubclass(EngineError, HedgerowError)
    assert str(EngineError("workers died again and again")) == "workers died again and again"
