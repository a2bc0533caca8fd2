"""The server's folder: settings are checked, notes are whole, one process holds it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hedgerow.server.app.claim import claim
from hedgerow.server.app.home import Running, ServerConfig, ServerHome, write_secret
from hedgerow.shared.errors import ConfigError

HOLD = """
import sys
from pathlib import Path
from hedgerow.server.app.claim import claim
from hedgerow.server.app.home import ServerHome
with claim(ServerHome(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> ServerHome:
    return ServerHome(tmp_path)


def holder(home: ServerHome) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('server_id = "s"\ngateway_prot = 1', "gateway_prot"),
        ('server_id = "s"\ngateway_port = 65536', "gateway_port"),
        ('server_id = "s"\nhosts = "localhost"', "hosts"),
        ("gateway_port = 1", "server_id"),
        ('server_id = "s"\ndevice_budget_epsilon = 0.0', "device_budget_epsilon"),
        ('server_id = "s"\ndevice_budget_epsilon = "much"', "device_budget_epsilon"),
        ("server_id = ", "server.toml"),
    ],
)
def test_wrong_settings_are_named(home: ServerHome, text: str, named: str) -> None:
    home.config.write_text(text)

    with pytest.raises(ConfigError, match=named):
        home.read_config()


def test_another_database_may_be_named(home: ServerHome) -> None:
    assert home.database_url(ServerConfig("s")) == f"sqlite:///{home.root}/hedgerow.db"
    assert home.database_url(ServerConfig("s", database_url="sqlite:////x.db")) == "sqlite:////x.db"


def test_where_it_listens_is_noted_while_it_runs(home: ServerHome) -> None:
    assert home.read_running() is None
    home.write_running(Running(8443, 8080))
    assert home.read_running() == Running(8443, 8080)
    home.clear_running()
    home.clear_running()
    assert home.read_running() is None


def test_a_torn_note_counts_as_none(home: ServerHome) -> None:
    home.running.write_bytes(b'{"gateway_port": 84')

    assert home.read_running() is None


def test_a_missing_operator_token_says_what_to_do(home: ServerHome) -> None:
    with pytest.raises(ConfigError, match="pass --token or set HEDGEROW_TOKEN"):
        home.read_operator_token()


def test_a_secret_is_its_owners_from_the_first_byte_and_replaces_the_old_one(home: ServerHome) -> None:
    before = os.umask(0)
    try:
        write_secret(home.operator_token, "one")
        write_secret(home.operator_token, "two")
    finally:
        os.umask(before)

    assert home.operator_token.read_text() == "two"
    assert stat.S_IMODE(home.operator_token.stat().st_mode) == 0o600
    assert [path.name for path in home.secrets.iterdir()] == ["operator-token"]


def test_a_second_process_is_refused_and_told_who_holds_the_folder(home: ServerHome) -> None:
    process = holder(home)
    try:
        with (
            pytest.raises(ConfigError, match=rf"runs on this folder already \(process {process.pid}\)"),
            claim(home),
        ):
            pass
    finally:
        process.communicate()


def test_a_killed_holder_holds_nothing(home: ServerHome) -> None:
    process = holder(home)
    process.kill()
    process.communicate()

    with claim(home):
        assert home.lock.read_text() == f"{os.getpid()}\n"


def test_it_can_be_held_again_after_letting_go(home: ServerHome) -> None:
    for _ in range(2):
        with claim(home):
            pass


def test_a_child_of_the_holder_does_not_keep_the_folder(home: ServerHome) -> None:
    with claim(home):
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        )
    try:
        with claim(home):
            pass
    finally:
        child.communicate()
