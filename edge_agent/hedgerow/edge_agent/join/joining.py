"""Joins a fleet: find the server, check the CA against the token's pin, only then show the secret."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from hedgerow.edge_agent.config import AgentConfig, MqttConfig, read_config, write_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.discover import Candidate, find_servers
from hedgerow.edge_agent.join.identity import check_certificate, install_identity, make_key, signing_request
from hedgerow.edge_agent.join.pinned import fetch_ca
from hedgerow.edge_agent.link.client import DeviceClient
from hedgerow.edge_agent.link.tls import server_only_context
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, ConfigError, ContentError, TransportError
from hedgerow.shared.files import write_atomically
from hedgerow.shared.identity import check_device_name
from hedgerow.shared.join_token import JoinToken, parse_token
from hedgerow.shared.messages import JoinRequest, JoinResponse


class Joined(msgspec.Struct, frozen=True):
    """What came of joining."""

    device: str
    server_url: str
    server_id: str
    groups: tuple[str, ...]
    home: str


def join(
    token: str,
    home: Path,
    *,
    url: str | None = None,
    device: str | None = None,
    mqtt: MqttConfig | None = None,
    again: bool = False,
    discover_s: float = 5.0,
    interfaces: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Joined:
    """Join the fleet of ``token`` and make ``home`` this device's; ``device`` is its name, by default the host's.

    ``again`` lets a home join anew (its certificate ended, say): its settings, samples and privacy ledger stay.

    Without ``url`` the server is looked for on the local network for ``discover_s``, and recognised by the pin alone.
    Raises ConfigError (token, name, URL, or a home that joined already), TransportError (nobody there), AuthError
    (not the token's server, before the secret was sent; or the token is spent, expired or unknown there),
    ContentError (name taken, or an answer that is none), StorageError.
    """
    parsed = parse_token(token)
    place = AgentHome(home)
    known = read_config(place.config) if place.joined() else None
    if known is not None and not again:
        raise ConfigError(
            f"{home}: belongs to {known.device!r} of {known.server_url} already; to join anew: --again"
        )
    name = _device_name(device or (known.device if known else None))
    if url is None:
        server_url, ca_pem = discover(parsed, discover_s, interfaces, say)
    else:
        server_url, ca_pem = url.rstrip("/"), fetch_ca(url, parsed.ca_pin)
    say(f"the server at {server_url} is the one that made the token")
    key = make_key(place.joining / f"{name}.key.pem")
    response = _ask(server_url, ca_pem, parsed, name, signing_request(key, name))
    certificate = check_certificate(response.certificate_pem, ca_pem, key, name)
    install_identity(place, key, certificate, ca_pem, name)
    write_atomically(place.tuf_root, response.tuf_root.encode())
    write_config(place.config, _config(known, server_url, name, mqtt))
    (place.joining / f"{name}.key.pem").unlink(missing_ok=True)
    return Joined(name, server_url, response.server_id, response.groups, str(home))


def discover(
    token: JoinToken, timeout_s: float, interfaces: Sequence[str] | None, say: Callable[[str], None]
) -> tuple[str, str]:
    """Return URL and CA of the server on the local network whose CA is the token's.

    Raises TransportError if none is found, AuthError if there are servers but none is the token's.
    """
    foreign = 0
    later: list[Candidate] = []
    for candidate in find_servers(timeout_s, interfaces):
        if candidate.pin != token.ca_pin:
            later.append(candidate)
            continue
        found = _try(candidate, token, say)
        if found is not None:
            return found
        foreign += 1
    # What a server says of its pin is no proof in either direction, so the others are asked too.
    for candidate in later:
        found = _try(candidate, token, say)
        if found is not None:
            return found
        foreign += 1
    if foreign:
        raise AuthError(
            f"{foreign} server(s) answer on the local network, none made this token; give the address: --url"
        )
    raise TransportError("no server answers on the local network; give its address: --url https://HOST:PORT")


def _try(candidate: Candidate, token: JoinToken, say: Callable[[str], None]) -> tuple[str, str] | None:
    for url in candidate.urls:
        try:
            return url, fetch_ca(url, token.ca_pin, timeout_s=3.0)
        except (TransportError, AuthError, ContentError) as error:
            say(f"passed over: {error}")
    return None


def _ask(url: str, ca_pem: str, token: JoinToken, device: str, csr_pem: str) -> JoinResponse:
    client = DeviceClient(url, server_only_context(ca_pem=ca_pem))
    request = JoinRequest(token.id, token.secret, device, csr_pem, agent_version())
    try:
        response = client.post("/v1/device/join", request).decode(JoinResponse)
    finally:
        client.close()
    if len(response.tuf_root) > limits.MAX_CONTROL_BODY_BYTES or response.device != device:
        raise ContentError(f"{url}: the answer to joining is not for {device!r}")
    return response


def _config(known: AgentConfig | None, url: str, device: str, mqtt: MqttConfig | None) -> AgentConfig:
    if known is None:
        return AgentConfig(url, device, mqtt=mqtt or MqttConfig())
    return msgspec.structs.replace(known, server_url=url, device=device, mqtt=mqtt or known.mqtt)


def _device_name(given: str | None) -> str:
    try:
        return check_device_name(name_from_host(socket.gethostname()) if given is None else given)
    except ContentError as error:
        raise ConfigError(f"{error} (--device NAME)") from error


def name_from_host(host: str) -> str:
    """Return a host's name as a device name would be written: its first label, other characters as hyphens."""
    label = re.sub(r"[^a-z0-9-]+", "-", host.split(".", maxsplit=1)[0].lower()).strip("-")
    return label[:63]


def agent_version() -> str:
    """Return the version of this installation."""
    try:
        return version("hedgerow")
    except PackageNotFoundError:
        return "unknown"
