"""The server's folder: where everything lies, and the settings a person may change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.tomlfile import read_toml
from hedgerow.shared.unreadable import UNREADABLE

Port = Annotated[int, Meta(ge=0, le=65535)]
Host = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,253}\Z")]


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``server.toml``. Port 0 means a free one, for tests and demos.

    ``hosts`` are the names and addresses by which devices reach the gateway; they stand in its certificate.
    The operator listener answers on ``operator_host`` only, and only to ``operator_hosts`` as Host header.
    ``device_budget_epsilon`` is the ε that all jobs of central privacy modes together may cost a device, each at its own δ.
    """

    server_id: str
    gateway_host: str = "0.0.0.0"  # noqa: S104  # devices are elsewhere; every request needs a certificate
    gateway_port: Port = 8443
    operator_host: str = "127.0.0.1"
    operator_port: Port = 8080
    operator_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    secure_cookie: bool = False
    hosts: tuple[Host, ...] = ("localhost", "127.0.0.1")
    database_url: str = ""
    advertise: bool = True
    device_budget_epsilon: Annotated[float, Meta(gt=0, le=1000)] = 10.0


class Running(msgspec.Struct, frozen=True):
    """Where a running server listens; kept in ``run.json`` while it runs."""

    gateway_port: int
    operator_port: int


class ServerHome:
    """Paths inside the server's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "server.toml"
        self.database = root / "hedgerow.db"
        self.blobs = root / "blobs"
        self.pki = root / "pki"
        self.tuf = root / "tuf"
        self.secrets = root / "secrets"
        self.operator_token = self.secrets / "operator-token"
        self.work = root / "work"
        self.running = root / "run.json"
        self.lock = root / "server.lock"

    def read_config(self) -> ServerConfig:
        """Return the settings. Raises ConfigError if the folder was never set up, naming the command."""
        if not self.config.exists():
            raise ConfigError(
                f"{self.root}: no server here; set one up with: hedgerow server init --home {self.root}"
            )
        return read_toml(self.config, ServerConfig)

    def read_operator_token(self) -> str:
        """Return the folder's own operator token. Raises ConfigError if this user may not read it."""
        try:
            return self.operator_token.read_text().strip()
        except OSError as error:
            raise ConfigError(
                f"{self.operator_token}: {error.strerror}; pass --token or set HEDGEROW_TOKEN"
            ) from error

    def write_running(self, running: Running) -> None:
        """Note where the server listens, for the commands on this machine."""
        write_secret(self.running, msgspec.json.encode(running).decode())

    def read_running(self) -> Running | None:
        """Return where the server listens, None if it does not run."""
        try:
            return msgspec.json.decode(self.running.read_bytes(), type=Running)
        except (OSError, *UNREADABLE):
            return None

    def clear_running(self) -> None:
        """Forget where the server listened."""
        self.running.unlink(missing_ok=True)

    def database_url(self, config: ServerConfig) -> str:
        """Return the configured database, else SQLite in the folder."""
        return config.database_url or f"sqlite:///{self.database}"


def write_secret(path: Path, text: str) -> None:
    """Write a file that only this user may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
