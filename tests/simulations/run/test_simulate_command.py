"""``hedgerow simulate`` as people type it, with the lean engine and real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hedgerow.shared.cli import main as hedgerow
from hedgerow.shared.job import Job
from hedgerow.shared.tomlfile import parse_toml
from hedgerow.simulations.run.api import run
from hedgerow.simulations.run.results import read_result

SMALL = """
name = "small"
description = "a few devices"
[job]
name = "small-job"
recipe = "mlp"
rounds = {rounds}
privacy = {{mode = "none"}}
parameters = {{classes = 3, inputs = 6, hidden = [8]}}
training = {{batch_size = 8, learning_rate = 0.1}}
[population]
devices = 6
source = "synthetic-vectors"
options = {{samples = 240}}
"""


def scenario(folder: Path, rounds: int = 3, extra: str = "") -> Path:
    path = folder / "small.toml"
    path.write_text(SMALL.format(rounds=rounds) + extra)
    return path


def simulate(*arguments: object) -> int:
    return hedgerow(["simulate", *map(str, arguments)])


def test_a_scenario_runs_and_leaves_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    assert simulate(scenario(tmp_path), "--folder", folder) == 0
    told = capsys.readouterr()
    assert "small, 6 devices" in told.out and "3 finished" in told.out and str(folder) in told.out
    assert "round 3/3" in told.err
    result = read_result(folder)
    assert (result.name, result.engine, len(result.rounds)) == ("small", "lean", 3)
    assert {"results.json", "model.npy", "checkpoint", "ledger.jsonl", "rounds.jsonl"} <= {
        path.name for path in folder.iterdir()
    }


def test_json_is_one_object_on_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(scenario(tmp_path), "--folder", tmp_path / "out", "--json", "--quiet") == 0
    told = capsys.readouterr()
    found = json.loads(told.out.splitlines()[-1])
    assert (found["name"], len(found["rounds"])) == ("small", 3)
    assert told.err == ""


def test_workers_do_not_show_in_the_model_nor_in_the_api(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    one = run(path, workers=1)
    two = run(path, workers=2, choices=one.choices)
    assert one.model_sha256 == two.model_sha256
    assert one.folder == ""


def test_options_stand_in_for_the_scenarios_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--rounds", 2, "--seed", 9, "--set", "job.training.learning_rate=0.5", "--workers", 1)
    assert simulate(scenario(tmp_path), "--folder", tmp_path / "out", "--quiet", *arguments) == 0
    found = read_result(tmp_path / "out")
    assert (len(found.rounds), found.seed) == (2, 9)
    assert found.scenario["job"]["training"]["learning_rate"] == 0.5
    assert "workers 1" in capsys.readouterr().out


def test_the_folder_is_under_runs_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert simulate(scenario(tmp_path), "--quiet", "--rounds", 1) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("small-")


def test_the_job_is_printed_as_a_fleet_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(scenario(tmp_path), "--print-job", "--set", "job.training.learning_rate=0.5") == 0
    job = parse_toml(capsys.readouterr().out.encode(), Job, "printed")
    assert (job.name, job.training.learning_rate) == ("small-job", 0.5)


def test_a_job_that_only_a_simulation_takes_is_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(scenario(tmp_path), "--print-job", "--set", "job.strategy.name=scaffold") == 1
    assert "strategy.name: expected" in capsys.readouterr().err


def test_the_scenarios_that_come_along_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("list", "--json") == 0
    names = {one["name"] for one in json.loads(capsys.readouterr().out)}
    assert {"digits-non-iid", "thousand-devices", "async-stragglers"} <= names
    assert simulate("list") == 0
    assert "digits-non-iid" in capsys.readouterr().out


BAD: dict[str, tuple[str, str]] = {
    "unknown key": ("[extra]\nx = 1", "unknown key extra"),
    "cohort larger than the population": ('[job.cohort]\nrule = "fixed"\nsize = 7', "job.cohort.size"),
    "impossible partition": (
        '[population.partition]\nkind = "label"\nlabels_per_device = 4',
        "labels_per_device",
    ),
    "too few samples": ("[population.partition]\nmin_examples = 100", "samples"),
    "strategy of nobody": ('[job.strategy]\nname = "magic"', "job.strategy.name"),
    "a rate below zero": ("[faults]\ndropout = -1.0", "faults.dropout"),
    "not TOML": ("[job", "not TOML"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_scenarios_name_the_file_and_the_field(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra, named = BAD[case]
    path = scenario(tmp_path, extra=extra)
    assert simulate(path, "--folder", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "small.toml" in told or "scenario small" in told
    assert named in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_training_that_falls_apart_names_the_learning_rate_and_keeps_what_was_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scenario(tmp_path)
    out = tmp_path / "out"
    assert simulate(path, "--folder", out, "--quiet", "--set", "job.training.learning_rate=1e35") == 1
    assert "job.training.learning_rate = 1e+35" in capsys.readouterr().err
    assert read_result(out).state == "interrupted"


def test_a_folder_that_holds_a_run_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = scenario(tmp_path)
    assert simulate(path, "--folder", tmp_path / "out", "--quiet", "--rounds", 1) == 0
    assert simulate(path, "--folder", tmp_path / "out", "--quiet", "--rounds", 1) == 1
    assert "--resume" in capsys.readouterr().err


def test_wrong_usage_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate() == 2
    assert simulate("--nonsense") == 2
    assert simulate("small.toml", "--rounds", 0) == 2


def test_help_loads_neither_torch_nor_flower_nor_accounting() -> None:
    code = (
        "import sys; from hedgerow.shared.cli import main\n"
        "try:\n    main(['simulate', '--help'])\nexcept SystemExit: pass\n"
        "print([n for n in ('torch', 'flwr', 'dp_accounting', 'sklearn', 'opacus') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--sweep" in done.stdout


def test_a_sweep_prints_the_best_and_leaves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = (
        '[sweep]\nfirst_rounds = 1\nkeep_one_of = 2\nfields = {"job.training.learning_rate" = [1e-6, 0.1]}'
    )
    path = scenario(tmp_path, extra=extra)
    out = tmp_path / "out"
    assert simulate(path, "--sweep", "--folder", out, "--quiet") == 0
    told = capsys.readouterr().out
    assert f"best: hedgerow simulate {path} --set job.training.learning_rate=0.1" in told
    assert (out / "best.toml").is_file()
    assert simulate(out / "best.toml", "--folder", tmp_path / "again", "--quiet") == 0


def test_two_runs_are_set_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = scenario(tmp_path)
    for name, rate in (("a", 0.1), ("b", 0.2)):
        change = f"job.training.learning_rate={rate}"
        assert simulate(path, "--folder", tmp_path / name, "--quiet", "--set", change) == 0
    capsys.readouterr()
    assert simulate("compare", tmp_path / "a", tmp_path / "b", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in found["differences"]] == ["job.training.learning_rate"]
    assert simulate("compare", tmp_path / "a", tmp_path / "gone") == 1
    assert "gone: no result there" in capsys.readouterr().err


def test_a_sweep_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.json").write_text("{}")
    extra = '[sweep]\nfirst_rounds = 1\nfields = {"job.training.learning_rate" = [0.1, 0.2]}'
    assert simulate(scenario(tmp_path, extra=extra), "--sweep", "--folder", tmp_path / "out") == 1
    assert "holds a sweep already" in capsys.readouterr().err


def test_a_sweep_needs_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(scenario(tmp_path), "--sweep", "--folder", tmp_path / "out") == 1
    assert "--sweep needs a [sweep] table" in capsys.readouterr().err


def test_the_api_tells_of_each_round_and_gives_rows_for_a_table(tmp_path: Path) -> None:
    told: list[int] = []
    result = run(
        scenario(tmp_path),
        rounds=2,
        progress=lambda record: told.append(record.round),
        overrides=["seed=4", ("job.training.learning_rate", 0.05)],
    )
    assert told == [1, 2]
    assert [row["round"] for row in result.records()] == [1, 2]
    assert result.seed == 4


# With signals, in a process of its own


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "hedgerow.shared.cli", "simulate", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_rounds(folder: Path, count: int, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and running.poll() is None:
        path = folder / "rounds.jsonl"
        if path.exists() and len(path.read_bytes().splitlines()) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"round {count} never came: {running.communicate(timeout=5)}")


def family(running: subprocess.Popen[str]) -> list[psutil.Process]:
    return [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.system
def test_ctrl_c_ends_after_the_round_with_files_written_and_no_orphans(tmp_path: Path) -> None:
    path = scenario(tmp_path, rounds=9999)
    out = tmp_path / "out"
    running = start(path, "--folder", out, cwd=tmp_path)
    wait_for_rounds(out, 3, running)
    processes = family(running)
    assert len(processes) > 1
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: workers get it too
    told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert gone(processes)
    assert "ending after this round" in told[1]
    result = read_result(out)
    assert result.state == "interrupted" and len(result.rounds) >= 3
    assert len((out / "rounds.jsonl").read_bytes().splitlines()) == len(result.rounds)


@pytest.mark.slow
@pytest.mark.system
def test_a_second_ctrl_c_ends_at_once_and_keeps_the_rounds_played(tmp_path: Path) -> None:
    # Rounds that take far longer than the test waits.
    training = "[job.training]\nlocal_epochs = 5\nbatch_size = 1\nlearning_rate = 0.001\n"
    path = tmp_path / "small.toml"
    text = SMALL.format(rounds=50).replace("training = {batch_size = 8, learning_rate = 0.1}\n", "")
    text = text.replace("samples = 240", "samples = 60000").replace("devices = 6", "devices = 3000")
    path.write_text(text + training)
    out = tmp_path / "out"
    running = start(path, "--folder", out, cwd=tmp_path)
    deadline = time.monotonic() + 90
    while not (out / "checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)  # the first round has begun
    processes = family(running)
    running.send_signal(signal.SIGINT)
    line = ""
    while "ending after this round" not in line:
        assert running.stderr is not None
        line = running.stderr.readline()
        assert line
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    assert running.returncode == 130
    assert gone(processes)
    assert read_result(out).state == "interrupted"


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedbuff"])
def test_a_killed_run_goes_on_to_the_model_of_one_that_was_left_alone(strategy: str, tmp_path: Path) -> None:
    options = {"fedbuff": "options = {buffer_size = 3, concurrency = 4}"}.get(strategy, "")
    extra = f'[job.strategy]\nname = "{strategy}"\n{options}\n'
    path = scenario(tmp_path, rounds=100, extra=extra)
    out = tmp_path / "out"
    running = start(path, "--folder", out, "--quiet", cwd=tmp_path)
    wait_for_rounds(out, 20, running)
    processes = family(running)
    running.kill()
    running.communicate(timeout=30)
    assert gone(processes), "workers outlive a parent that was killed"
    assert simulate(path, "--folder", out, "--quiet", "--resume") == 0
    rest = read_result(out)
    assert (rest.state, len(rest.rounds)) == ("finished", 100)
    assert rest.model_sha256 == run(path, workers=1, choices=rest.choices).model_sha256
