"""Setting a server up, once: folder, certificate authority, signing keys, database, the first operator token."""

from __future__ import annotations

from pathlib import Path

from hedgerow.server.api.operators import Operators, Role
from hedgerow.server.app.home import ServerConfig, ServerHome, write_secret
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import Database
from hedgerow.server.store.migrate import upgrade
from hedgerow.shared.errors import ConfigError

_TEMPLATE = """\
# Settings of this Hedgerow server; `hedgerow server run` reads them at start.
server_id = "{server_id}"

# Where devices reach the gateway. Every request but joining needs a device certificate.
gateway_host = "{gateway_host}"
gateway_port = {gateway_port}

# Names and addresses by which devices reach it; they stand in its certificate.
hosts = [{hosts}]

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
    """Make a server in ``root``. Raises ConfigError if there is one already."""
    home = ServerHome(root)
    if home.config.exists():
        raise ConfigError(
            f"{root}: there is a server already; start it with: hedgerow server run --home {root}"
        )
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = CertificateAuthority.create(home.pki)
    TufRepository(home.tuf, KeyFolder(home.secrets / "tuf")).create()
    text = _TEMPLATE.format(
        server_id=authority.server_id,
        gateway_host=gateway_host,
        gateway_port=gateway_port,
        operator_port=operator_port,
        hosts=", ".join(f'"{host}"' for host in hosts),
        advertise=str(advertise).lower(),
    )
    database = Database(home.database_url(ServerConfig(authority.server_id)))
    try:
        upgrade(database)
        write_secret(home.operator_token, Operators(database).issue("local-admin", Role.ADMIN) + "\n")
    finally:
        database.close()
    # The settings come last: a folder without them is one that can be set up again after it was emptied.
    home.config.write_text(text)
    return home
