"""A server's folder is made whole or not at all, once, and only its owner may read what is secret."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from hedgerow.server.api.operators import Operators, Role
from hedgerow.server.app.home import ServerHome
from hedgerow.server.app.setup import set_up
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import Database
from hedgerow.shared.errors import ConfigError


def test_the_folder_holds_a_whole_server(tmp_path: Path) -> None:
    home = set_up(tmp_path / "s", ("fleet.example.org", "192.168.1.10"), gateway_port=9443, advertise=False)

    config = home.read_config()
    assert (config.hosts, config.gateway_port, config.advertise) == (
        ("fleet.example.org", "192.168.1.10"),
        9443,
        False,
    )
    assert config.server_id == CertificateAuthority.load(home.pki).server_id
    assert b"root" in TufRepository(home.tuf, KeyFolder(home.secrets / "tuf")).root_bytes()


def test_the_operator_token_is_an_admins(tmp_path: Path) -> None:
    home = set_up(tmp_path / "s", ())
    database = Database(home.database_url(home.read_config()))

    assert Operators(database).authenticate(home.read_operator_token()).role is Role.ADMIN
    database.close()


def test_secrets_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    home = set_up(tmp_path / "s", ())

    secret = [home.operator_token, *home.secrets.rglob("*"), *home.pki.glob("*key*")]
    assert len(secret) > 4
    for path in (home.root, *secret):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_operator_listener_is_on_loopback(tmp_path: Path) -> None:
    config = set_up(tmp_path / "s", ()).read_config()

    assert config.operator_host == "127.0.0.1"
    assert set(config.operator_hosts) <= {"127.0.0.1", "localhost", "[::1]"}


def test_a_second_set_up_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    set_up(tmp_path / "s", ())
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}

    with pytest.raises(ConfigError, match="there is a server already; start it with: hedgerow server run"):
        set_up(tmp_path / "s", ("other",))

    assert {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()} == before


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("mine")

    with pytest.raises(ConfigError, match="is not empty"):
        set_up(tmp_path, ())

    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"gateway_port": 70_000}, "gateway_port"),
        ({"operator_port": -1}, "operator_port"),
        ({"hosts": ('a"\nadvertise = true\nx = "',)}, "hosts"),
    ],
)
def test_a_wrong_setting_is_named_and_leaves_no_folder(
    tmp_path: Path, wrong: dict[str, Any], named: str
) -> None:
    options = {"hosts": (), **wrong}

    with pytest.raises(ConfigError, match=named):
        set_up(tmp_path / "s", **options)

    assert not (tmp_path / "s").exists()


def test_a_folder_without_settings_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hedgerow server init --home"):
        ServerHome(tmp_path).read_config()
