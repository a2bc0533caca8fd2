"""Setting a server up, once: folder, certificate authority, signing keys, database, the first operator token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hedgerow.server.api.operators import Operators, Role
from hedgerow.server.app.home import ServerConfig, ServerHome, write_secret
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import Database
from hedgerow.server.store.migrate import upgrade
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.tomlfile import parse_toml

_TEMPLATE = """\
# Settings of this Hedgerow server; `hedgerow server run` reads them at start.
server_id = {server_id}

# Where devices reach the gateway. Every request but joining needs a device certificate.
gateway_host = {gateway_host}
gateway_port = {gateway_port}

# Names and addresses by which devices reach it; they stand in its certificate.
hosts = {hosts}

# Where operators reach dashboard, fleet API and /metrics: loopback unless you change it.
operator_host = "127.0.0.1"
operator_port = {operator_port}

# Announce the server on the local network, so that `hedgerow agent join TOKEN` needs no address.
advertise = {advertise}
"""


def set_up(
    root: Path,
    hosts: tuple[str, ...],
    *,
    gateway_host: str = "0.0.0.0",  # noqa: S104  # devices are elsewhere; every request needs a certificate
    gateway_port: int = 8443,
    operator_port: int = 8080,
    advertise: bool = True,
) -> ServerHome:
    """Make a server in ``root``.

    Raises ConfigError if there is one already, or a setting is wrong; a folder made here is then removed again.
    """
    home = ServerHome(root)
    if home.config.exists():
        raise ConfigError(
            f"{root}: there is a server already; start it with: hedgerow server run --home {root}"
        )
    if root.exists() and any(root.iterdir()):
        raise ConfigError(f"{root}: is not empty, and no server either; name another folder with --home")
    wanted = {
        "gateway_host": gateway_host,
        "gateway_port": gateway_port,
        "operator_port": operator_port,
        "hosts": hosts,
        "advertise": advertise,
    }
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        _fill(home, wanted)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return home


def _fill(home: ServerHome, wanted: dict[str, Any]) -> None:
    authority = CertificateAuthority.create(home.pki)
    wanted = {"server_id": authority.server_id, **wanted}
    text = _TEMPLATE.format(**{key: json.dumps(value, ensure_ascii=False) for key, value in wanted.items()})
    config = parse_toml(text.encode(), ServerConfig, "settings")
    # Made here for the sake of its errors: a wrong name shows now, and not at the first start.
    authority.server_pair(config.hosts)
    TufRepository(home.tuf, KeyFolder(home.secrets / "tuf")).create()
    database = Database(home.database_url(config))
    try:
        upgrade(database)
        write_secret(home.operator_token, Operators(database).issue("local-admin", Role.ADMIN) + "\n")
    finally:
        database.close()
    # The settings come last: a folder with settings is a whole server.
    home.config.write_text(text, encoding="utf-8")
