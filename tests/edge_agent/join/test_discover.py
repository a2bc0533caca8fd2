"""Finding the server by real multicast DNS on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fleet import FleetServer, running_server

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.discover import urls_of
from hedgerow.edge_agent.join.joining import join
from hedgerow.server.pki.advertise import Advertisement, local_addresses
from hedgerow.shared.errors import AuthError, TransportError
from hedgerow.shared.join_token import new_token

LOOPBACK = ["127.0.0.1"]


def advertised(server: FleetServer, pin: str | None = None) -> Advertisement:
    made = Advertisement(
        server.authority.server_id, pin or server.authority.pin, server.gateway.port, interfaces=LOOPBACK
    )
    try:
        server.run(made.start())
    except TransportError as error:
        pytest.skip(f"multicast DNS does not work on this machine's loopback: {error}")
    return made


@pytest.fixture(scope="module")
def two_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FleetServer, FleetServer]]:
    folder = tmp_path_factory.mktemp("servers")
    with running_server(folder / "ours") as ours, running_server(folder / "theirs") as theirs:
        announcements = [(ours, advertised(ours)), (theirs, advertised(theirs))]
        yield ours, theirs
        for server, announcement in announcements:
            server.run(announcement.stop())


def test_of_several_servers_the_tokens_own_is_joined(
    two_servers: tuple[FleetServer, FleetServer], tmp_path: Path
) -> None:
    for n, server in enumerate(two_servers):
        token = server.fleet.tokens.issue().text()
        joined = join(token, tmp_path / str(n), device=f"found-{n}", interfaces=LOOPBACK, discover_s=8)

        assert joined.server_url == server.url
        assert AgentHome(tmp_path / str(n)).ca.read_text() == server.authority.pem


def test_servers_of_other_fleets_are_passed_over_and_told_of(
    two_servers: tuple[FleetServer, FleetServer], tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(AuthError, match="none made this token"):
        join(
            new_token("0" * 64).text(),
            tmp_path / "home",
            device="lost",
            interfaces=LOOPBACK,
            discover_s=2.5,
            say=said.append,
        )

    assert len(said) >= 2 and all("passed over" in line for line in said)


def test_wrong_announcement_of_the_pin_is_no_hindrance(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        announcement = advertised(server, pin="f" * 64)
        token = server.fleet.tokens.issue().text()
        joined = join(token, tmp_path / "home", device="found", interfaces=LOOPBACK, discover_s=2.5)
        server.run(announcement.stop())

    assert joined.server_url == server.url


def test_nobody_there_says_what_to_do(tmp_path: Path) -> None:
    # Another test's servers may be announced on this machine at the same time: then it is told that they are foreign.
    with pytest.raises((TransportError, AuthError), match="--url"):
        join(new_token("0" * 64).text(), tmp_path, device="lost", interfaces=["127.0.0.2"], discover_s=0.3)


def test_addresses_become_urls_ipv4_first_without_link_local() -> None:
    assert urls_of(["fe80::1", "2001:db8::1", "10.0.0.1"], 8443) == (
        "https://10.0.0.1:8443",
        "https://[2001:db8::1]:8443",
    )


def test_this_machine_has_an_address() -> None:
    assert local_addresses()
