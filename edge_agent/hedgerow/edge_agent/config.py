"""``agent.toml``: how an agent reaches its server and broker and how it behaves. Written by joining, edited by people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hedgerow.shared.files import write_atomically
from hedgerow.shared.tomlfile import read_toml


class MqttConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker that the sensors publish to.

    ``tls``: ``none``; ``system`` trusts the system's authorities; ``fleet`` trusts the fleet's CA and presents the
    device's certificate. The password is read from ``password_file``, relative to the home.
    """

    url: Annotated[str, Meta(pattern=r"^mqtts?://", max_length=256)] = "mqtt://127.0.0.1:1883"
    username: Annotated[str, Meta(max_length=128)] = ""
    password_file: Annotated[str, Meta(max_length=1024)] = ""
    tls: Literal["none", "system", "fleet"] = "none"


class TrainerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the trainer's process may take; ``memory_limit_mib`` 0 means no limit."""

    enabled: bool = True
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    nice: Annotated[int, Meta(ge=0, le=19)] = 10
    memory_limit_mib: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    device: Annotated[str, Meta(max_length=32)] = "cpu"


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the agent keeps in touch with its server."""

    heartbeat_interval_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    poll_wait_s: Annotated[float, Meta(ge=0.1, le=60)] = 45.0
    max_backoff_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0


class OutboxConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may wait for the server before the oldest is dropped and a gap is noted."""

    max_bytes: Annotated[int, Meta(ge=64 * 1024, le=1 << 32)] = 16 * 1024 * 1024
    max_events: Annotated[int, Meta(ge=100, le=10_000_000)] = 50_000


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An agent's configuration. ``profile`` is relative to the home; ``api_port`` 0 means any free port."""

    server_url: Annotated[str, Meta(pattern=r"^https://", max_length=256)]
    device: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
    profile: Annotated[str, Meta(max_length=1024)] = "profile.toml"
    api_port: Annotated[int, Meta(ge=0, le=65535)] = 8765
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    mqtt: MqttConfig = MqttConfig()
    trainer: TrainerConfig = TrainerConfig()
    link: LinkConfig = LinkConfig()
    outbox: OutboxConfig = OutboxConfig()


def read_config(path: Path) -> AgentConfig:
    """Return the configuration. Raises ConfigError naming file, line or key, and what was expected."""
    return read_toml(path, AgentConfig)


def write_config(path: Path, config: AgentConfig) -> None:
    """Write the configuration atomically, readable by its owner alone. Raises StorageError."""
    write_atomically(path, to_toml(msgspec.to_builtins(config)).encode(), 0o600)


def to_toml(table: dict[str, Any]) -> str:
    """Return a table of strings, numbers, booleans and one level of tables as TOML."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]", *(f"{name} = {_value(inner)}" for name, inner in value.items())]
    return "\n".join(lines) + "\n"


def _value(value: str | float | bool) -> str:
    # A TOML basic string takes JSON's escapes; DEL must be escaped in TOML and is not in JSON.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
