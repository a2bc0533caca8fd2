"""``hedgerow agent`` as people type it, against a real local API: answers, and what it says when there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hedgerow.edge_agent.cli import default_home
from hedgerow.edge_agent.config import AgentConfig, read_config, write_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.local_api.server import LocalApi
from hedgerow.shared.cli import main as hedgerow
from hedgerow.shared.specs import TensorSpec
from hedgerow.simulations.processes.broker import free_port

STATUS: dict[str, Any] = {
    "device": "dev-1", "profile": "pump", "profile_version": 3, "uptime_s": 61.4, "pss_bytes": 52_000_000,
    "server": {"connected": False, "down_s": 12.0, "reason": "hub:1: no answer in time"},
    "broker_connected": True, "broker_version": "5.0", "telemetry": {"readings": 7, "quarantined": 1},
    "samples": {"window": 5}, "inferences_total": 9, "alarms_total": 2, "trainer": "idle",
    "bundles": [{"model": "pump", "version": 4, "state": "serving", "runtime": "litert", "precision": "int8", "reason": ""}],
}  # fmt: skip


def agent(*arguments: object) -> int:
    return hedgerow(["agent", *map(str, arguments)])


@pytest.fixture
def home(tmp_path: Path) -> Iterator[AgentHome]:
    place = AgentHome(tmp_path)
    api = LocalApi(
        token_file=place.api_token,
        predict=lambda spec, sample: {"spec": spec, "total": sample.sum()},
        specs=lambda: {"window": TensorSpec("window", "float32", (2,), "window")},
        status=lambda: STATUS,
    )
    api.start()
    write_config(place.config, AgentConfig("https://hub:1", "dev-1", api_port=api.port))
    yield place
    api.stop()


def test_status_says_how_each_part_stands(home: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent("status", "--home", home.path) == 0
    told = capsys.readouterr().out
    for part in (
        "dev-1: profile pump v3, up 61 s", "down for 12 s: hub:1: no answer in time", "connected, MQTT 5.0",
        "7 taken, 1 messages in quarantine", "5 window", "pump v4 serving litert int8", "9 answers, 2 alarms", "52 MB, trainer idle",
    ):  # fmt: skip
        assert part in told
    assert agent("status", "--home", home.path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_a_sample_is_asked_about_from_a_file(home: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
    file = home.path / "sample.json"
    file.write_text("[1.5, 2]")
    assert agent("predict", "--home", home.path, "--file", file) == 0
    assert json.loads(capsys.readouterr().out) == {"spec": "window", "total": 3.5}


@pytest.mark.parametrize(
    ("content", "says"),
    [("[1, ", "not JSON"), ("[1, 2, 3]", "2 entries were expected"), (None, "cannot be read")],
)
def test_what_is_no_sample_is_told(
    content: str | None, says: str, home: AgentHome, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home.path / "sample.json"
    if content is not None:
        file.write_text(content)
    assert agent("predict", "--home", home.path, "--file", file) == 1
    told = capsys.readouterr().err
    assert says in told
    assert "Traceback" not in told


def test_an_unknown_tensor_is_answered_with_those_there_are(
    home: AgentHome, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home.path / "sample.json"
    file.write_text("[1, 2]")
    assert agent("predict", "--home", home.path, "--file", file, "--spec", "other") == 1
    assert "there are window" in capsys.readouterr().err


def test_the_port_is_found_by_the_agents_note(home: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
    config = AgentConfig("https://hub:1", "dev-1", api_port=0)
    port = read_config(home.config).api_port
    write_config(home.config, config)
    assert agent("status", "--home", home.path) == 1
    assert "does not run (no api-port)" in capsys.readouterr().err
    home.api_port_note.write_text("rubbish")
    assert agent("status", "--home", home.path) == 1
    home.api_port_note.write_text(f"{port}\n")
    assert agent("status", "--home", home.path) == 0


def test_an_agent_that_is_away_refuses_or_never_ran_is_told(
    home: AgentHome, capsys: pytest.CaptureFixture[str]
) -> None:
    token = home.api_token.read_text()
    home.api_token.write_text("another token, of the right length")
    assert agent("status", "--home", home.path) == 1
    assert "the agent answered" in capsys.readouterr().err
    home.api_token.unlink()
    assert agent("status", "--home", home.path) == 1
    assert "has this agent ever run?" in capsys.readouterr().err
    home.api_token.write_text(token)
    write_config(home.config, AgentConfig("https://hub:1", "dev-1", api_port=free_port()))
    assert agent("status", "--home", home.path) == 1
    assert "'hedgerow agent run' up?" in capsys.readouterr().err


def test_the_home_comes_from_the_environment_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEDGEROW_HOME", raising=False)
    assert default_home() == Path("/var/lib/hedgerow")
    monkeypatch.setenv("HEDGEROW_HOME", str(tmp_path))
    assert default_home() == tmp_path


@pytest.mark.parametrize("options", [["--hoem", "x"], ["--home"], ["now"], ["--help=1", "x"]])
def test_run_takes_a_home_and_nothing_else(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = agent("run", *options)
    told = capsys.readouterr()
    assert (code, "usage: hedgerow agent run" in told.err + told.out) in {(2, True), (0, True)}


@pytest.mark.parametrize("equals", [True, False])
def test_a_home_that_is_not_there_says_how_to_make_one(
    equals: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    assert agent("run", *([f"--home={gone}"] if equals else ["--home", gone])) == 1
    assert f"hedgerow agent join TOKEN --home {gone}" in capsys.readouterr().err


PROFILE = """
name = "bench"
version = 1
[[tensor]]
name = "image"
dtype = "uint8"
shape = [2, 2, 1]
kind = "image"
"""


def test_arrays_are_taken_in_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile.toml").write_text(PROFILE)
    np.savez(tmp_path / "a.npz", x=np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1), y=np.arange(3))
    given = ("ingest", "--home", tmp_path, "--arrays", tmp_path / "a.npz", "--spec", "image", "--json")
    assert agent(*given) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 3
    assert agent(*given) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--csv FILE or --arrays FILE"),
        (("--arrays", "a.npz", "--spec", "other"), "tensors are image, not 'other'"),
    ],
)
def test_what_cannot_be_taken_in_is_told(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profile.toml").write_text(PROFILE)
    assert agent("ingest", "--home", tmp_path, *arguments) == 1
    assert says in capsys.readouterr().err


def test_the_egress_statement_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert agent("egress", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {"Heartbeat", "EventBatch", "TrainReply"} <= {one["message"] for one in told}
    assert all(one["fields"] for one in told)
