"""How engines are started, spoken to and judged: commands and surroundings, replies, growth, verdicts."""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.simulations.bench.simulation_peers import speaking
from hedgerow.simulations.bench.simulation_peers.plain import PlainLoop
from hedgerow.simulations.bench.simulation_peers.sgemm import FLOPS
from hedgerow.simulations.bench.simulation_peers.task import PeerTask, Setup
from hedgerow.simulations.bench.simulation_run import engines, growth
from hedgerow.simulations.bench.simulation_run.engines import ENGINES, LEAN, SGEMM, Starter
from hedgerow.simulations.bench.simulation_run.figures import WANTED, all_met, rows_of, starts_of
from hedgerow.simulations.bench.simulation_run.peer import Peer, PeerError
from hedgerow.simulations.bench.simulation_run.pss import PeakPss
from hedgerow.simulations.bench.simulation_run.table import table
from hedgerow.simulations.bench.simulation_run.turns import Figures, Measured
from hedgerow.simulations.bench.simulation_run.workloads import WORKLOADS, first_model


def task(labels: bool = True) -> PeerTask:
    rng = np.random.default_rng(2)
    counts = np.array([7, 3, 12, 5])
    total = int(counts.sum())
    return PeerTask(
        net={"kind": "mlp", "widths": [4, 5, 3]},
        recipe="mlp",
        parameters={"hidden": [5]},
        seed=3,
        batch=4,
        learning_rate=0.1,
        x=rng.normal(size=(total, 4)).astype(np.float32),
        y=rng.integers(3, size=total) if labels else None,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        model=rng.normal(size=4 * 5 + 5 + 5 * 3 + 3).astype(np.float32),
    )


class Recorded:
    """What a peer would have been started with."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.command, self.environment, self.log = list(command), environment, log


@pytest.mark.parametrize(
    ("name", "module", "option", "threads"),
    [
        (LEAN, "lean_run", "3", None),
        (SGEMM, "sgemm", "3", "3"),
        ("flower", "flower_run", "3", None),
        ("plain", "plain", "1", None),
        ("plain-threads", "plain", "0", None),
        ("pfl", "pfl_run", "3", "1"),
        ("pfl-1", "pfl_run", "1", "1"),
    ],
)
def test_each_engine_is_started_on_the_folder_with_its_own_threads_and_log(
    name: str, module: str, option: str, threads: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "Peer", Recorded)
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    monkeypatch.setenv("MKL_NUM_THREADS", "77")
    python = Path("/opt/pfl/python")

    made: Any = Starter(3, python).start(name, tmp_path)

    assert made.command[0] == (str(python) if name.startswith("pfl") else sys.executable)
    assert made.command[1] == "-m"
    assert made.command[2].endswith(f"simulation_peers.{module}")
    assert made.command[3:] == [str(tmp_path), option]
    assert made.log == tmp_path / f"{name}.log"
    assert made.environment.get("OMP_NUM_THREADS") == threads
    assert "MKL_NUM_THREADS" not in made.environment
    assert made.environment["FLWR_TELEMETRY_ENABLED"] == made.environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_what_pfl_is_given_imports_without_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "Peer", Recorded)
    made: Any = Starter(2, Path(sys.executable)).start("pfl", tmp_path)
    root = Path(made.environment["PYTHONPATH"])
    code = (
        "import sys, hedgerow.simulations.bench.simulation_peers.speaking as s\n"
        "assert s.__file__.startswith(sys.argv[1]), s.__file__\n"
        "print([m for m in sys.modules if m.startswith(('hedgerow.shared', 'hedgerow.server', 'torch', 'msgspec'))])"
    )
    path = os.pathsep.join([str(root), str(Path(np.__file__).parents[1])])

    said = subprocess.run(
        [sys.executable, "-S", "-c", code, str(root)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert said.stdout == "[]\n", said.stderr


class Counting:
    """A runner that does as asked and remembers."""

    def __init__(self) -> None:
        self.setups: list[Setup] = []

    def configure(self, setup: Setup) -> None:
        self.setups.append(setup)

    def rounds(self, n: int) -> list[float]:
        return [0.5] * n

    def model(self) -> np.ndarray:
        return np.array([1.5, -2.0], np.float32)


def test_commands_are_carried_out_and_unknown_ones_refused(tmp_path: Path) -> None:
    runner = Counting()
    path = tmp_path / "model.npy"
    setup = {"cohort": 3, "private": True, "noise": 0.0, "whole": True}

    assert speaking.carry_out(runner, {"do": "configure", "setup": setup}) == {}
    assert speaking.carry_out(runner, {"do": "rounds", "n": 3}) == {"seconds": [0.5] * 3}
    assert speaking.carry_out(runner, {"do": "model", "path": str(path)}) == {}
    with pytest.raises(ValueError, match="no command 'dance'"):
        speaking.carry_out(runner, {"do": "dance"})

    assert runner.setups == [Setup(3, True, 0.0, True)]
    assert np.load(path).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("last", ['{"do": "end"}\n{"do": "rounds", "n": 9}\n', ""])
def test_commands_end_when_told_or_when_the_pipe_closes(last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.stdin", io.StringIO('{"do": "rounds", "n": 1}\n{"do": "rounds", "n": 2}\n' + last)
    )

    assert [asked["n"] for asked in speaking.commands()] == [1, 2]


def test_replies_go_to_their_own_descriptor_whatever_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setenv(speaking.REPLIES, str(writing))
    monkeypatch.setattr("sys.stdin", io.StringIO('{"do": "rounds", "n": 2}\n{"do": "end"}\n'))

    speaking.serve(Counting())
    os.close(writing)

    with os.fdopen(reading) as said:
        assert [json.loads(line) for line in said] == [{"seconds": [0.5, 0.5]}]


SPEAKS = """
import os, sys, json
print('noise on standard output')
out = int(os.environ['HEDGEROW_BENCH_REPLIES'])
for line in sys.stdin:
    asked = json.loads(line)
    if asked['do'] == 'end':
        break
    answer = (json.dumps({'seconds': [float(asked.get('n', 0))]}) + '\\n').encode()
    for byte in answer:
        os.write(out, bytes([byte]))
"""


def test_a_peer_is_heard_byte_by_byte_and_its_noise_is_in_its_log(tmp_path: Path) -> None:
    made = Peer([sys.executable, "-u", "-c", SPEAKS], dict(os.environ), tmp_path / "log")
    try:
        made.configure(Setup(1), 60)
        assert [made.rounds(n, 60) for n in (1, 2, 30)] == [[1.0], [2.0], [30.0]]
    finally:
        made.end()
    assert "noise on standard output" in (tmp_path / "log").read_text()


def test_a_peer_that_ends_without_a_word_says_that_its_log_is_empty(tmp_path: Path) -> None:
    made = Peer([sys.executable, "-c", ""], dict(os.environ), tmp_path / "log")
    with pytest.raises(PeerError, match="it ended: its log is empty"):
        made.rounds(1, 60)
    made.end()


def test_the_peak_of_a_tree_is_what_its_child_took(tmp_path: Path) -> None:
    program = (
        "import os, sys\nout = int(os.environ['HEDGEROW_BENCH_REPLIES'])\n"
        "for line in sys.stdin:\n    block = b'x' * (40 << 20)\n    os.write(out, b'{\"seconds\": []}\\n')\n"
        "    if 'end' in line: break\n"
    )
    made = Peer([sys.executable, "-c", program], dict(os.environ), tmp_path / "log")
    try:
        with PeakPss(made.pid, interval_s=30.0) as idle:
            pass
        with PeakPss(made.pid, interval_s=30.0) as busy:
            made.rounds(1, 60)
    finally:
        made.end()

    assert busy.bytes_ - idle.bytes_ > 30 << 20


def test_plain_rounds_average_by_examples() -> None:
    given_task = task()
    loop = PlainLoop(given_task)
    loop.configure(Setup(4))
    alone = [_one(loop, device) for device in range(4)]
    weights = np.diff(given_task.offsets)

    loop.configure(Setup(4))
    assert len(loop.rounds(1)) == 1

    expected = sum(w * a for w, a in zip(weights, alone, strict=True)) / weights.sum()
    assert loop.model() == pytest.approx(expected, abs=1e-5)
    assert np.abs(loop.model() - given_task.model).max() > 1e-3
    loop.configure(Setup(4))
    assert np.array_equal(loop.model(), given_task.model), "configured anew it begins again"


def _one(loop: PlainLoop, device: int) -> np.ndarray:
    loop._round = 1
    state = loop._train(device)
    return np.concatenate([value.numpy().ravel() for value in state.values()])


def test_the_first_model_is_its_seeds() -> None:
    one, again, other = (first_model("mlp", {"hidden": [5]}, seed) for seed in (1, 1, 2))

    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("quick", [True, False])
def test_growth_beyond_the_data_is_told_in_models_a_worker(
    quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def make(images: int, devices: int, parameters: Any = None, **_: Any) -> PeerTask:
        large = devices > 100
        assert parameters is not None
        made = task()
        model = np.zeros(1 << 20 if large else 1, np.float32)
        x = np.zeros((3 << 20 if large else 1, 1), np.float32)
        sizes.append(devices)
        assert images == 20 * devices
        return PeerTask(**{**made.__dict__, "model": model, "x": x})

    def peaks(given_task: PeerTask, workers: int) -> dict[str, int]:
        assert workers == 2
        large = len(given_task.model) > 1
        mib = 1 << 20
        return {"opening": (100 + (12 + 24) * large) * mib, "rounds": (100 + (12 + 25) * large) * mib}

    monkeypatch.setattr(growth, "image_task", make)
    monkeypatch.setattr(growth, "_peaks", peaks)

    found = growth.measure_growth(2, quick=quick)

    # 12 MiB of data and 4 MiB a model: 24 more are 3 models for each of two workers, 25 are more than wanted
    assert sizes == [100, 2000 if quick else 10_000]
    assert (found["data_mib"], found["model_mib"]) == (12.0, 4.0)
    assert found["opening"]["copies_per_worker"] == pytest.approx(3.0, abs=0.01)
    assert found["rounds"]["copies_per_worker"] == pytest.approx(3.12, abs=0.01)
    assert found["rounds"]["growth_mib"] == 37.0
    assert found["met"] is False
    assert len(growth.growth_lines(found).splitlines()) == 3


@pytest.mark.parametrize("labels", [True, False])
def test_the_data_of_a_task_are_its_arrays_without_the_model(labels: bool) -> None:
    given_task = task(labels)

    assert growth._data_bytes(given_task) == 27 * 4 * 4 + 5 * 8 + (27 * 8 if labels else 0)


seconds = st.lists(st.floats(0.001, 100), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(ours=seconds, theirs=seconds, products=seconds, flops=st.integers(1, 10**9))
def test_rows_are_medians_minima_and_their_ratios(
    ours: list[float], theirs: list[float], products: list[float], flops: int
) -> None:
    given_task, workload = task(), WORKLOADS["mlp-10"]
    figures = {LEAN: Figures(ours, 0.0, 1 << 20), "plain": Figures(theirs, 1e-6, 3 << 20)}

    found = rows_of(Measured(workload, False, [2, 3], figures, products), given_task, flops)

    lean, plain = found["engines"]
    middle = statistics.median
    assert lean["s_per_round"] == pytest.approx(middle(ours), rel=1e-3)
    assert plain["ratio"] == pytest.approx(middle(theirs) / middle(ours), abs=0.006)
    assert plain["ratio_of_minima"] == pytest.approx(min(theirs) / min(ours), abs=0.006)
    assert plain["met"] == (middle(theirs) / middle(ours) >= WANTED["plain", "mlp"])
    assert (lean["same"], plain["same"], plain["peak_pss_mib"]) == (True, True, 3)
    rate = FLOPS / middle(products)
    assert found["samples_per_round"] == 27
    assert found["floor_s"] == pytest.approx(27 * flops / rate, rel=1e-3)
    assert found["of_floor"] == pytest.approx(27 * flops / rate / middle(ours), abs=1e-4)


@pytest.mark.parametrize("difference", [float("nan"), float("inf"), 1.1e-5])
def test_a_model_that_is_no_number_is_another_model(difference: float) -> None:
    figures = {LEAN: Figures([0.1], 0.0, 1), "plain": Figures([9.0], difference, 1)}
    found = rows_of(Measured(WORKLOADS["mlp-10"], False, [2], figures, [1.0]), task(), 10)

    assert found["engines"][1]["same"] is False
    assert not all_met({"workloads": [found], "starts": []})


def test_a_wanted_share_of_the_floor_decides_too() -> None:
    figures = {LEAN: Figures([1.0], 0.0, 1)}

    def met(share: float) -> bool:
        found = rows_of(Measured(WORKLOADS["synth28-10"], False, [2], figures, [1.0]), task(), 10)
        return all_met({"workloads": [{**found, "of_floor": share}], "starts": []})

    assert (met(0.45), met(0.449)) == (True, False)
    found = rows_of(Measured(WORKLOADS["synth28-10"], False, [2], figures, []), task(), 10)
    assert found["of_floor"] is None
    assert not all_met({"workloads": [found], "starts": []}), "what could not be measured is not met"


def test_an_engine_that_never_started_fails_the_wanted_first_round() -> None:
    start = starts_of("digits", {"plain": 1.0}, {LEAN: "Traceback\nOSError: no memory\n"})

    assert (start["wanted_s"], start["met"]) == (3.0, None)
    assert not all_met({"workloads": [], "starts": [start]})
    assert "    lean failed: OSError: no memory" in table({"workloads": [], "starts": [start]})


def test_every_wanted_ratio_names_an_engine_and_a_family_that_exist() -> None:
    families = {workload.family for workload in WORKLOADS.values()}

    assert all(engine in ENGINES and family in families for engine, family in WANTED)
    assert min(WANTED.values()) > 1


def test_the_table_marks_privacy_and_keeps_its_columns() -> None:
    figures = {LEAN: Figures([0.5], 0.0, 1 << 20), "flower": Figures([5.0], None, None)}
    found = rows_of(Measured(WORKLOADS["mlp-10"], True, [2], figures, [0.2]), task(), 10)

    lines = table({"workloads": [found], "starts": []}).splitlines()

    assert lines[1].startswith("mlp-10 dp       lean")
    assert lines[2].startswith(" " * 16 + "flower")
    assert "≥ 5" in lines[2] and lines[2].rstrip().endswith("-")
    assert len(lines[1]) == len(lines[0])
    assert "GFLOP/s" in lines[3] and "ours is at" not in lines[3]
