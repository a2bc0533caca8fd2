"""Where the broker is and how to speak to it, as a person sets it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from hedgerow.edge_agent.config import AgentConfig
from hedgerow.edge_agent.home import AgentHome
from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``url`` is ``mqtt://host[:1883]`` or ``mqtts://host[:8883]``; ``client_id`` names the persistent session.

    ``ca_file`` replaces the system's authorities; ``certificate_file`` and ``key_file`` are the device's own.
    Results go below ``topic_prefix``.
    """

    url: str
    client_id: Annotated[str, Meta(min_length=1, max_length=64)]
    topic_prefix: Annotated[str, Meta(min_length=1, max_length=128)] = "hedgerow/v1/device"
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 30
    session_expiry_s: Annotated[int, Meta(ge=60, le=2**32 - 2)] = 7 * 86_400

    def address(self) -> tuple[str, int, bool]:
        """Return host, port and whether TLS is used. Raises ConfigError for another kind of URL."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"broker url {self.url!r}: {error}") from error
        if (
            parts.scheme not in ("mqtt", "mqtts")
            or not parts.hostname
            or parts.username
            or parts.path.strip("/")
        ):
            raise ConfigError(
                f"broker url {self.url!r}: expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT]; credentials have their own keys"
            )
        tls = parts.scheme == "mqtts"
        return parts.hostname, port or (8883 if tls else 1883), tls

    def tls_context(self) -> ssl.SSLContext:
        """Return a verifying client context. Raises ConfigError if a file cannot be used."""
        for key, name in (("ca_file", self.ca_file), ("certificate_file", self.certificate_file)):
            if name is not None and not Path(name).is_file():
                raise ConfigError(f"broker {key}: {name} is not a file")
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"broker certificate files cannot be used: {error}") from error
        return context


def broker_settings(config: AgentConfig, home: AgentHome) -> BrokerSettings:
    """Return the settings of an agent's ``[mqtt]`` table. Raises ConfigError if they contradict, or a file is missing."""
    mqtt = config.mqtt
    if (mqtt.tls == "none") == mqtt.url.startswith("mqtts:"):
        raise ConfigError(f"{home.config}: mqtt.tls = {mqtt.tls!r} does not go with mqtt.url = {mqtt.url!r}")
    fleet = mqtt.tls == "fleet"
    return BrokerSettings(
        url=mqtt.url,
        client_id=config.device,
        topic_prefix=f"hedgerow/v1/{config.device}",
        username=mqtt.username or None,
        password=_password(home.path / mqtt.password_file) if mqtt.password_file else None,
        ca_file=str(home.ca) if fleet else None,
        certificate_file=str(home.certificate) if fleet else None,
        key_file=str(home.key) if fleet else None,
    )


def _password(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(limits.MAX_TOKEN_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mqtt.password_file: {path} cannot be read: {error}") from error
