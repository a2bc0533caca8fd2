"""The benchmark's command, a tiny run of it, and engines that fail without ending it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.bench import simulation
from hedgerow.simulations.bench.simulation_peers.task import PeerTask, Setup, write_task
from hedgerow.simulations.bench.simulation_run import turns
from hedgerow.simulations.bench.simulation_run.engines import LEAN, PLAIN, Starter
from hedgerow.simulations.bench.simulation_run.peer import Peer, PeerError
from hedgerow.simulations.bench.simulation_run.turns import running
from hedgerow.simulations.bench.simulation_run.workloads import Workload, first_model
from hedgerow.simulations.flower.processes import family, is_alive

NO_INTERPRETER = Path("/nowhere/python")


def tiny_task() -> PeerTask:
    rng = np.random.default_rng(5)
    counts = np.array([20, 5, 33, 17])
    return PeerTask(
        net={"kind": "mlp", "widths": [64, 8, 10]},
        recipe="mlp",
        parameters={"hidden": [8]},
        seed=3,
        batch=16,
        learning_rate=0.1,
        x=rng.random((75, 64), np.float32),
        y=rng.integers(10, size=75),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        model=first_model("mlp", {"hidden": [8]}, 3),
    )


@pytest.mark.slow
@pytest.mark.system
def test_ours_and_the_plain_loop_agree_and_are_timed_on_the_same_rounds(tmp_path: Path) -> None:
    task, workload = tiny_task(), Workload("tiny", "mlp", 3, 2)
    with running(task, tmp_path, Starter(2), [LEAN, PLAIN], 3) as engines:
        plain = engines.measure(workload, False, 2)
        private = engines.measure(workload, True, 1)
        pids = [member for peer in engines._peers.values() for member in family(peer.pid)]
    assert engines.errors == {}
    assert plain.rounds == [2, 3, 4, 5]
    for found in (plain, private):
        assert set(found.engines) == {LEAN, PLAIN}
        for figures in found.engines.values():
            assert len(figures.seconds) == len(found.rounds)
            assert min(figures.seconds) > 0
            assert figures.difference is not None and figures.difference <= 1e-5
            assert figures.pss is not None and figures.pss > 50 << 20
    assert plain.products and min(plain.products) > 0
    assert set(engines.first_round_s) == {LEAN, PLAIN, "sgemm"}
    assert not any(is_alive(member) for member in pids)


@pytest.mark.slow
@pytest.mark.system
def test_an_engine_that_is_slow_gets_one_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_LONG_TURN_S", 0.0)
    with running(tiny_task(), tmp_path, Starter(1), [PLAIN], 2) as engines:
        found = engines.measure(Workload("tiny", "mlp", 2, 2), False, 3)
    assert len(found.rounds) == 6
    assert len(found.engines[PLAIN].seconds) == 2
    assert found.engines[PLAIN].error is None


@pytest.mark.slow
@pytest.mark.system
def test_an_engine_that_cannot_start_does_not_end_the_run(tmp_path: Path) -> None:
    task, workload = tiny_task(), Workload("tiny", "mlp", 2, 1)
    without_pfl = Starter(1, Path(sys.executable))
    with running(task, tmp_path, without_pfl, [PLAIN, "pfl-1"], 2) as engines:
        found = engines.measure(workload, False, 1)
    assert "pfl" in engines.errors["pfl-1"]
    assert found.engines["pfl-1"].seconds == []
    assert "No module named" in str(found.engines["pfl-1"].error)
    assert len(found.engines[PLAIN].seconds) == 1


def peer(folder: Path, program: str) -> Peer:
    return Peer([sys.executable, "-c", program], dict(os.environ), folder / "log")


def test_a_peer_that_ends_tells_its_log(tmp_path: Path) -> None:
    made = peer(tmp_path, "raise SystemExit('no such thing')")
    with pytest.raises(PeerError, match="no such thing"):
        made.configure(Setup(1), 30)
    made.end()


def test_a_peer_that_takes_too_long_is_given_up_and_ended(tmp_path: Path) -> None:
    made = peer(tmp_path, "import sys, time\nsys.stdin.readline()\nsys.stdin.readline()\n")
    with pytest.raises(PeerError, match="'rounds' took more than 0 s"):
        made.rounds(1, 0.1)
    members = family(made.pid)
    made.end()
    made.end()
    assert members
    assert not any(is_alive(member) for member in members)


def test_unknown_workloads_and_peers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = simulation.parser().parse_args(["--workloads", "mlp-10,chess"])
    with pytest.raises(ConfigError, match="--workloads: no chess; there are synth28-10"):
        simulation.chosen(arguments)
    assert simulation.main.__doc__ is not None
    with pytest.raises(SystemExit):
        simulation.main(["--rounds", "0"])
    assert "--rounds must be from 1 to 100" in capsys.readouterr().err


def test_workloads_are_run_in_their_own_order_and_quick_takes_two() -> None:
    def names(*arguments: str) -> list[str]:
        return [workload.name for workload in simulation.chosen(simulation.parser().parse_args(arguments))]

    assert names("--workloads", "mlp-100,digits-10") == ["digits-10", "mlp-100"]
    assert names("--workloads", "mlp") == ["mlp-10", "mlp-100"]
    assert names("--quick") == ["digits-10", "mlp-10"]
    assert len(names()) == 8


def test_pfl_takes_part_only_where_its_interpreter_is_given() -> None:
    assert "pfl" not in Starter(2).names()
    assert Starter(2, NO_INTERPRETER).names() == [LEAN, PLAIN, "plain-threads", "flower", "pfl", "pfl-1"]
    assert Starter(2, NO_INTERPRETER).names(["pfl"]) == [LEAN, "pfl"]


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(300)
def test_the_command_prints_its_table_and_one_object_on_the_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = simulation.main(
        ["--workloads", "digits-10", "--peers", "plain", "--no-dp", "--rounds", "1", "--json"]
    )
    out = capsys.readouterr().out.strip().splitlines()
    result = json.loads(out[-1])
    assert code == 0
    assert out[0].startswith("workload")
    (found,) = result["workloads"]
    assert [each["engine"] for each in found["engines"]] == ["lean", "plain"]
    assert all(each["same"] for each in found["engines"])
    assert 0 < found["of_floor"] < 1.5
    assert result["starts"][0]["first_round_s"]["lean"] > 0


def test_a_task_in_a_folder_is_what_engines_are_started_on(tmp_path: Path) -> None:
    write_task(tiny_task(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "task.json"]
