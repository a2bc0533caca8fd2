"""Workers that die, parents that die, and recipes that raise: nothing is lost, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.support.simulation_lean import (
    SuddenRecipe,
    batch,
    killed_here,
    make_scenario,
    marked,
    strategy,
    tasks,
    tiny_population,
)
from tests.support.tiny_recipe import RECIPE as TINY

from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Doubles
from hedgerow.simulations.lean.engine import LeanEngine
from hedgerow.simulations.population.values import Population

REFERENCE = {"kernel": "reference:1"}  # chosen by timing, a sudden recipe would act in the parent
COUNTS = (6, 11, 2, 3, 9, 1, 14, 5)
MODEL = np.array([0.3, -0.2, 0.1, 0.05], np.float32)


def population() -> Population:
    return marked(tiny_population(COUNTS), 3)


def honest(rounds: int = 1, name: str = "fedavg") -> list[Doubles]:
    scenario = make_scenario("tiny", 8, strategy=strategy(name))
    with LeanEngine(scenario, TINY, population(), workers=0, choices=REFERENCE) as engine:
        engine.open()
        return [
            engine.train(batch(MODEL, tasks(range(8), round=r))).total.copy() for r in range(1, rounds + 1)
        ]


def children() -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_worker_killed_in_a_batch_leaves_no_trace_in_the_sum(tmp_path: Path, workers: int) -> None:
    recipe = SuddenRecipe(tmp_path / "once", killed_here)
    with LeanEngine(
        make_scenario("tiny", 8), recipe, population(), workers=workers, choices=REFERENCE
    ) as engine:
        engine.open()
        before = {p.pid for p in children()}
        answer = engine.train(batch(MODEL, tasks(range(8))))
        after = {p.pid for p in children()}
    assert not (tmp_path / "once").exists()
    assert len(after) == workers
    assert before != after
    np.testing.assert_array_equal(answer.total, honest()[0])
    assert (answer.count, len(answer.outcomes)) == (8, 8)


def test_a_worker_killed_between_batches_is_replaced() -> None:
    with LeanEngine(make_scenario("tiny", 8), TINY, population(), workers=2, choices=REFERENCE) as engine:
        engine.open()
        for _ in range(2):
            children()[0].kill()
            answer = engine.train(batch(MODEL, tasks(range(8))))
            np.testing.assert_array_equal(answer.total, honest()[0])


def test_three_deaths_in_one_batch_are_an_error_that_says_how(tmp_path: Path) -> None:
    recipe = SuddenRecipe(tmp_path / "always", killed_here, always=True)
    with LeanEngine(make_scenario("tiny", 8), recipe, population(), workers=2, choices=REFERENCE) as engine:
        engine.open()
        with pytest.raises(EngineError, match=r"SIGKILL: usually the system ran out of memory.*died 3 times"):
            engine.train(batch(MODEL, tasks(range(8))))
        (tmp_path / "always").unlink()
        answer = engine.train(batch(MODEL, tasks(range(8))))
    np.testing.assert_array_equal(answer.total, honest()[0])


def test_a_worker_that_exits_says_its_code(tmp_path: Path) -> None:
    recipe = SuddenRecipe(tmp_path / "always", lambda: os._exit(3), always=True)
    with LeanEngine(make_scenario("tiny", 8), recipe, population(), workers=1, choices=REFERENCE) as engine:
        engine.open()
        with pytest.raises(EngineError, match="exited with code 3"):
            engine.train(batch(MODEL, tasks(range(8))))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_recipe_raises_names_device_and_round(tmp_path: Path, workers: int) -> None:
    def wrong() -> None:
        raise ZeroDivisionError("no such thing")

    recipe = SuddenRecipe(tmp_path / "once", wrong)
    with LeanEngine(
        make_scenario("tiny", 8), recipe, population(), workers=workers, choices=REFERENCE
    ) as engine:
        engine.open()
        with pytest.raises(EngineError, match=r"devices .*3.* in round 5: ZeroDivisionError: no such thing"):
            engine.train(batch(MODEL, tasks(range(8), round=5)))
        answer = engine.train(batch(MODEL, tasks(range(8))))
    np.testing.assert_array_equal(answer.total, honest()[0])


def test_ctrl_c_while_workers_train_leaves_an_engine_that_trains(tmp_path: Path) -> None:
    parent = os.getpid()

    def interrupted() -> None:
        os.kill(parent, signal.SIGINT)

    recipe = SuddenRecipe(tmp_path / "once", interrupted)
    with LeanEngine(make_scenario("tiny", 8), recipe, population(), workers=2, choices=REFERENCE) as engine:
        engine.open()
        with pytest.raises(KeyboardInterrupt):
            engine.train(batch(MODEL, tasks([3] * 2000)))
        answer = engine.train(batch(MODEL, tasks(range(8))))
    np.testing.assert_array_equal(answer.total, honest()[0])
    assert children() == []


def test_control_kept_by_devices_is_as_if_nobody_had_died(tmp_path: Path) -> None:
    recipe = SuddenRecipe(tmp_path / "once", killed_here)
    (tmp_path / "once").unlink()
    scenario = make_scenario("tiny", 8, strategy=strategy("scaffold"))
    totals = []
    with LeanEngine(
        scenario, recipe, population(), workers=2, choices=REFERENCE, state_folder=tmp_path / "s"
    ) as engine:
        engine.open()
        for round in (1, 2, 3):
            if round == 2:
                (tmp_path / "once").touch()
            totals.append(engine.train(batch(MODEL, tasks(range(8), round=round))).total.copy())
    assert not (tmp_path / "once").exists()
    for total, expected in zip(totals, honest(3, "scaffold"), strict=True):
        np.testing.assert_array_equal(total, expected)


def test_closing_ends_all_workers_and_may_be_done_twice() -> None:
    engine = LeanEngine(make_scenario("tiny", 8), TINY, population(), workers=3, choices=REFERENCE)
    engine.close()
    engine.open()
    assert len(children()) == 3
    engine.close()
    engine.close()
    assert children() == []
    with pytest.raises(EngineError, match="not open"):
        engine.train(batch(MODEL, tasks([0])))
    engine.open()
    np.testing.assert_array_equal(engine.train(batch(MODEL, tasks(range(8)))).total, honest()[0])
    engine.close()


def test_an_exception_in_the_loop_ends_all_workers() -> None:
    with (
        pytest.raises(RuntimeError, match="in the loop"),
        LeanEngine(make_scenario("tiny", 8), TINY, population(), workers=2, choices=REFERENCE) as engine,
    ):
        engine.open()
        raise RuntimeError("in the loop")
    assert children() == []


def test_descriptors_are_given_back() -> None:
    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def once() -> None:
        with LeanEngine(make_scenario("tiny", 8), TINY, population(), workers=2, choices=REFERENCE) as engine:
            engine.open()
            engine.train(batch(MODEL, tasks(range(8)), want="each"))

    once()
    before = held()
    once()
    assert held() == before


def test_workers_outlive_a_thread_that_opened_the_engine() -> None:
    engine = LeanEngine(make_scenario("tiny", 8), TINY, population(), workers=1, choices=REFERENCE)
    thread = threading.Thread(target=engine.open)
    thread.start()
    thread.join()
    pids = {p.pid for p in children()}
    answer = engine.train(batch(MODEL, tasks(range(8))))
    assert {p.pid for p in children()} == pids
    engine.close()
    np.testing.assert_array_equal(answer.total, honest()[0])


@pytest.mark.system
@pytest.mark.parametrize("busy", [False, True])
def test_no_worker_outlives_a_parent_that_was_killed(busy: bool) -> None:
    code = textwrap.dedent(f"""
        import sys, time
        import numpy as np, psutil
        from tests.support.simulation_lean import SuddenRecipe, batch, make_scenario, marked, tasks, tiny_population
        from hedgerow.simulations.lean.engine import LeanEngine
        from pathlib import Path
        def say():
            print("busy", flush=True)
            time.sleep(600)
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            recipe = SuddenRecipe(Path(folder) / "once", say)
            engine = LeanEngine(make_scenario("tiny", 2), recipe, marked(tiny_population([3, 3]), 0), workers=2, choices={{"kernel": "reference:1"}})
            engine.open()
            print(*[p.pid for p in psutil.Process().children()], flush=True)
            if {busy}:
                engine.train(batch(np.zeros(4, np.float32), tasks([0, 1])))
            sys.stdin.read()
    """)
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        if busy:
            assert parent.stdout.readline() == "busy\n"
        assert len(workers) == 2
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
