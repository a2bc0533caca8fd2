"""``hedgerow server`` as a person types it: folders, tokens, errors, exit codes, examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer.main

from hedgerow.server.api.operators import Operators, Role
from hedgerow.server.app.claim import claim
from hedgerow.server.app.home import ServerHome
from hedgerow.server.cli import server
from hedgerow.server.fleet.tokens import JoinTokens, TokenInfo
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import Database
from hedgerow.shared import cli
from hedgerow.shared.join_token import parse_token


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("server") / "home"
    assert server.main(["init", "--home", str(root), "--no-advertise"]) == 0
    return root


@pytest.fixture
def said(home: Path, capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    capsys.readouterr()
    return capsys


def operator(home: Path, token: str) -> tuple[str, Role]:
    database = Database(f"sqlite:///{home}/hedgerow.db")
    try:
        found = Operators(database).authenticate(token)
        return found.name, found.role
    finally:
        database.close()


def issued(home: Path) -> dict[str, TokenInfo]:
    database = Database(f"sqlite:///{home}/hedgerow.db")
    try:
        return {token.id: token for token in JoinTokens(database, "").all()}
    finally:
        database.close()


def test_init_says_what_it_made_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "s"
    options = [
        "--host",
        "fleet.example.org",
        "--host",
        "10.0.0.1",
        "--gateway-port",
        "9000",
        "--operator-port",
        "0",
    ]

    assert server.main(["init", "--home", str(root), *options]) == 0

    text = capsys.readouterr().out
    assert f"hedgerow server run --home {root}" in text
    config = ServerHome(root).read_config()
    assert (config.hosts, config.gateway_port, config.operator_port) == (
        ("fleet.example.org", "10.0.0.1"),
        9000,
        0,
    )
    assert (root / "secrets" / "operator-token").read_text().strip() not in text


def test_init_speaks_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main(["init", "--home", str(tmp_path / "s"), "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert Path(found["operator_token_file"]).read_text().startswith("hop1.")


def test_the_home_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEDGEROW_SERVER_HOME", str(tmp_path / "s"))

    assert server.main(["init", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["home"] == str(tmp_path / "s")


def test_a_second_init_fails_and_says_how_to_start(home: Path, said: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["server", "init", "--home", str(home)]) == 1
    assert "there is a server already; start it with: hedgerow server run" in said.readouterr().err


@pytest.mark.parametrize("command", [["run"], ["token"], ["token", "--operator", "ann"]])
def test_without_a_server_the_commands_name_init(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert cli.main(["server", *command, "--home", str(tmp_path)]) == 1
    assert "set one up with: hedgerow server init" in capsys.readouterr().err


def test_a_join_token_carries_group_device_and_life(home: Path, said: pytest.CaptureFixture[str]) -> None:
    options = ["--group", "pumps", "--group", "hall-a", "--device", "pump-1", "--ttl-s", "60"]
    assert server.main(["token", "--home", str(home), *options]) == 0

    token = parse_token(said.readouterr().out.strip())
    info = issued(home)[token.id]
    assert (info.groups, info.device) == (("pumps", "hall-a"), "pump-1")
    assert round((info.expires_at - info.created_at).total_seconds()) == 60
    assert token.ca_pin == CertificateAuthority.load(home / "pki").pin


def test_each_join_token_is_another(home: Path, said: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        server.main(["token", "--home", str(home), "--json"])

    first, second = (json.loads(line)["token"] for line in said.readouterr().out.splitlines())
    assert first != second


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--group", "Hall A"], "Hall A"),
        (["--ttl-s", "0"], "a token lives between"),
        (["--device", "Pump 1"], "Pump 1"),
        (["--operator", "ann", "--role", "boss"], "none of viewer, operator, approver, admin"),
        (["--operator", "x" * 65], "1 to 63 characters"),
    ],
)
def test_wrong_tokens_are_refused_with_the_reason(
    home: Path, said: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    assert cli.main(["server", "token", "--home", str(home), *options]) == 1

    spoken = said.readouterr()
    assert named in spoken.err
    assert spoken.out == ""


@pytest.mark.parametrize("role", [role.name.lower() for role in Role])
def test_an_operator_token_has_the_role_asked_for(
    home: Path, said: pytest.CaptureFixture[str], role: str
) -> None:
    assert server.main(["token", "--home", str(home), "--operator", "ann", "--role", role]) == 0
    assert operator(home, said.readouterr().out.strip()) == ("ann", Role[role.upper()])


def test_an_operator_is_a_viewer_unless_asked_otherwise(home: Path, said: pytest.CaptureFixture[str]) -> None:
    assert server.main(["token", "--home", str(home), "--operator", "eve"]) == 0
    assert operator(home, said.readouterr().out.strip()) == ("eve", Role.VIEWER)


def test_an_unknown_log_level_is_refused_before_anything_starts(
    home: Path, said: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["server", "run", "--home", str(home), "--log-level", "loud"]) == 1

    assert "'loud' is none of debug, info, warning, error" in said.readouterr().err
    assert not (home / "server.lock").exists()


def test_a_folder_in_use_is_refused(home: Path, said: pytest.CaptureFixture[str]) -> None:
    with claim(ServerHome(home)):
        assert cli.main(["server", "run", "--home", str(home)]) == 1

    assert "a server runs on this folder already" in said.readouterr().err
    (home / "server.lock").unlink()


@pytest.mark.parametrize("wrong", [["walk"], ["init", "--speed", "9"], ["init", "--gateway-port", "many"]])
def test_wrong_usage_ends_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["server", *wrong]) == 2
    assert capsys.readouterr().err


def test_help_ends_with_0_and_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    names = [command.callback.__name__ for command in server.app.registered_commands if command.callback]
    assert names == ["init", "run", "token"]
    for name in names:
        assert cli.main(["server", name, "--help"]) == 0
        assert f"Example: hedgerow server {name}" in capsys.readouterr().out


def test_every_option_is_explained() -> None:
    group = typer.main.get_command(server.app)
    for command in group.commands.values():  # type: ignore[attr-defined]
        for parameter in command.params:
            assert parameter.help, f"{command.name} {parameter.name}"
