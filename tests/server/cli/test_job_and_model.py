"""The operator's commands against a real listener: tables, JSON, exit codes, errors that say what to do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.support.operator import (
    OperatorListener,
    RecordInMemory,
    job,
    model,
    operator_listener,
    round_view,
    withheld_round,
)

from hedgerow.server.api.operators import Role
from hedgerow.server.cli import job as job_command
from hedgerow.server.cli import model as model_command
from hedgerow.shared import cli

JOB = 'name = "pump-anomaly"\nrecipe = "anomaly-autoencoder"\n[privacy]\nmode = "none"\n'


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[OperatorListener]:
    record = RecordInMemory(
        [], [job()], {"j1": [round_view(1), round_view(2, 0.8)]}, [model(2), model(1, ("previous",))]
    )
    with operator_listener(tmp_path, record) as running:
        yield running


def at(listener: OperatorListener, role: Role = Role.ADMIN) -> list[str]:
    return ["--url", listener.url, "--token", listener.tokens[role]]


def test_jobs_are_listed_as_a_table_and_as_json(
    listener: OperatorListener, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job_command.main(["list", *at(listener)]) == 0
    table = capsys.readouterr().out
    assert job_command.main(["list", "--json", *at(listener)]) == 0

    assert "2/8" in table
    assert json.loads(capsys.readouterr().out)[0]["job_id"] == "j1"


def test_a_job_is_shown_with_its_rounds(
    listener: OperatorListener, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job_command.main(["show", "j1", *at(listener)]) == 0

    text = capsys.readouterr().out
    assert "round 2/8  4/5 devices" in text
    assert "rejected: non-finite 1" in text


def test_the_rounds_of_a_central_job_are_shown_without_their_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    record = RecordInMemory([], [job(mode="central-poisson")], {"j1": [withheld_round(1, 2.25)]})
    with operator_listener(tmp_path, record) as running:
        assert job_command.main(["show", "j1", *at(running)]) == 0
        text = capsys.readouterr().out
        assert job_command.main(["list", *at(running)]) == 0

    assert "round 1/8  counts withheld  1.50 s" in text
    assert "ε 2.25" in text
    assert " up, " not in text
    assert "central-poisson" in capsys.readouterr().out


def test_submitting_sends_the_file(
    listener: OperatorListener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.toml"
    file.write_text(JOB)

    assert job_command.main(["submit", str(file), *at(listener)]) == 0

    assert capsys.readouterr().out.strip() == "j9"
    assert listener.actions.asked == [("submit", JOB)]


def end_soon(listener: OperatorListener, state: str) -> threading.Thread:
    def finish() -> None:
        time.sleep(0.3)
        record = listener.record
        record.all_rounds["j1"].append(round_view(3, 0.9))
        record.all_jobs[0] = msgspec.structs.replace(
            record.all_jobs[0], state=state, round=3, model_version=2
        )
        listener.context.bus.publish("job.state", job_id="j1")

    thread = threading.Thread(target=finish)
    thread.start()
    return thread


@pytest.mark.parametrize(("state", "code"), [("delivered", 0), ("failed", 1), ("cancelled", 1)])
def test_watching_follows_a_job_to_its_end(
    listener: OperatorListener, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    thread = end_soon(listener, state)

    assert job_command.main(["watch", "j1", *at(listener)]) == code

    thread.join()
    text = capsys.readouterr().out
    assert text.count("round 1/8") == 1
    assert "round 3/8" in text
    assert f"pump-anomaly: {state}" in text


def test_watching_as_json_ends_with_the_job(
    listener: OperatorListener, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = end_soon(listener, "delivered")

    job_command.main(["watch", "j1", "--json", *at(listener)])

    thread.join()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["state"] == "delivered"


def test_models_are_listed_and_the_champion_shown(
    listener: OperatorListener, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model_command.main(["list", "--json", *at(listener)]) == 0
    assert [one["version"] for one in json.loads(capsys.readouterr().out)] == [2, 1]

    assert model_command.main(["show", "pump", *at(listener)]) == 0
    text = capsys.readouterr().out
    assert "pump version 2 champion" in text
    assert "passed agreement" in text


def test_rolling_back(listener: OperatorListener, capsys: pytest.CaptureFixture[str]) -> None:
    assert model_command.main(["rollback", "pump", *at(listener)]) == 0

    assert "previous version" in capsys.readouterr().out
    assert listener.actions.asked == [("rollback", "pump")]


@pytest.mark.parametrize(
    ("group", "arguments", "said"),
    [
        ("job", ["show", "nothing"], "no job 'nothing'"),
        ("job", ["submit", "nowhere.toml"], "nowhere.toml: cannot be read"),
        ("model", ["show", "nothing"], "no model 'nothing'; there are pump"),
        ("model", ["show", "pump", "--version", "7"], "versions 2, 1, not 7"),
        ("model", ["rollback", "missing"], "no model 'missing'"),
    ],
)
def test_errors_say_what_was_wrong(
    listener: OperatorListener,
    capsys: pytest.CaptureFixture[str],
    group: str,
    arguments: list[str],
    said: str,
) -> None:
    assert cli.main([group, *arguments, *at(listener)]) == cli.EXIT_FAILED
    assert said in capsys.readouterr().err


def test_a_viewer_may_not_act(listener: OperatorListener, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["model", "rollback", "pump", *at(listener, Role.VIEWER)]) == cli.EXIT_FAILED
    assert "operator" in capsys.readouterr().err


def test_no_server_and_no_folder_name_the_remedy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["job", "list", "--url", "http://127.0.0.1:9", "--token", "x"]) == cli.EXIT_FAILED
    assert "hedgerow server run" in capsys.readouterr().err
    assert cli.main(["job", "list", "--home", str(tmp_path)]) == cli.EXIT_FAILED
    assert "hedgerow server init" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nonsense"], ["show"], ["list", "--nonsense"]])
def test_wrong_usage_is_exit_code_two(arguments: list[str]) -> None:
    assert cli.main(["job", *arguments]) == cli.EXIT_USAGE


@pytest.mark.parametrize("main", [job_command.main, model_command.main])
def test_every_command_has_an_example(
    main: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = job_command.app if main is job_command.main else model_command.app
    for command in app.registered_commands:
        assert command.epilog is not None
        assert command.epilog.startswith("Example: hedgerow ")
