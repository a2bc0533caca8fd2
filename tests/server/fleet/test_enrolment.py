from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hedgerow.edge_agent.join.identity import signing_request
from hedgerow.server.pki.certificates import new_key
from hedgerow.server.pki.requests import spki_of
from hedgerow.server.pki.trust import MAX_TOKEN_FAILURES, NameTakenError
from hedgerow.shared.errors import AuthError, ConfigError, ContentError
from hedgerow.shared.join_token import JoinToken
from hedgerow.shared.messages import JoinRequest


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def test_joined_device_is_listed_and_its_certificate_is_known(server: Any) -> None:
    token = server.fleet.tokens.issue(["line-a", "line-b"])
    response = server.join("pump-1", token)

    assert response.groups == ("line-a", "line-b")
    assert response.server_id == server.authority.server_id
    assert response.ca_pem == server.authority.pem
    assert server.fleet.devices.device_of(der(response.certificate_pem)) == "pump-1"
    listed = server.fleet.devices.get("pump-1")
    assert (listed.groups, listed.status) == (("line-a", "line-b"), "active")


def test_token_serves_once(server: Any) -> None:
    token = server.fleet.tokens.issue()
    server.join("pump-1", token)

    with pytest.raises(AuthError, match="used already"):
        server.join("pump-2", token)
    with pytest.raises(AuthError, match="used already"):
        server.join("pump-1", token)
    assert [device.name for device in server.fleet.devices.all()] == ["pump-1"]


def test_one_token_and_many_devices_at_once_lets_one_in(server: Any) -> None:
    token = server.fleet.tokens.issue()
    results: list[str] = []

    def attempt(n: int) -> None:
        try:
            results.append(server.join(f"pump-{n}", token).device)
        except AuthError as error:
            results.append(str(error))

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len([result for result in results if result.startswith("pump-")]) == 1
    assert len(server.fleet.devices.all()) == 1


def test_lost_answer_can_be_asked_for_again_with_the_same_key(server: Any) -> None:
    token = server.fleet.tokens.issue(["a"])
    csr = signing_request(new_key(), "pump-1")

    assert server.join("pump-1", token, csr) == server.join("pump-1", token, csr)
    server.later(minutes=16)
    with pytest.raises(AuthError, match="expired"):
        server.join("pump-1", token, csr)


def test_expired_token_is_refused(server: Any) -> None:
    token = server.fleet.tokens.issue()
    server.later(minutes=15)

    with pytest.raises(AuthError, match="expired"):
        server.join("pump-1", token)


def test_token_of_another_server_is_refused(server: Any) -> None:
    foreign = JoinToken("0" * 8, "x" * 32, "0" * 64)
    with pytest.raises(AuthError, match="not known here"):
        server.join("pump-1", foreign)


def test_wrong_secrets_shut_a_token(server: Any) -> None:
    token = server.fleet.tokens.issue()
    for _ in range(MAX_TOKEN_FAILURES):
        with pytest.raises(AuthError, match="not known here"):
            server.join("pump-1", JoinToken(token.id, "y" * 32, token.ca_pin))

    with pytest.raises(AuthError, match="too many wrong secrets"):
        server.join("pump-1", token)


def test_secret_is_not_in_the_database(server: Any) -> None:
    token = server.fleet.tokens.issue()
    server.database.close()

    stored = b"".join(path.read_bytes() for path in Path(server.folder).glob("test.db*"))
    assert token.id.encode() in stored
    assert token.secret.encode() not in stored


def test_taken_name_is_refused_and_the_token_stays_good(server: Any) -> None:
    server.join("pump-1")
    token = server.fleet.tokens.issue()
    with pytest.raises(NameTakenError, match="pump-1"):
        server.join("pump-1", token)

    assert server.join("pump-2", token).device == "pump-2"


@pytest.mark.parametrize("name", ["server", "localhost", "Pump", "a" * 64, "../x"])
def test_bad_or_reserved_name_is_refused_and_the_token_stays_good(server: Any, name: str) -> None:
    token = server.fleet.tokens.issue()
    with pytest.raises(ContentError):
        server.fleet.enrolment.join(
            JoinRequest(token.id, token.secret, name, signing_request(new_key(), "x"))
        )

    assert server.join("pump-1", token).device == "pump-1"


def test_csr_of_another_name_is_refused_and_the_token_stays_good(server: Any) -> None:
    token = server.fleet.tokens.issue()
    with pytest.raises(ContentError, match="common name"):
        server.join("pump-1", token, signing_request(new_key(), "pump-2"))

    assert server.join("pump-1", token).device == "pump-1"


def test_bound_token_is_for_one_name_and_replaces_that_device(server: Any) -> None:
    old = server.join("pump-1").certificate_pem
    with pytest.raises(AuthError, match="for the device 'pump-1'"):
        server.join("pump-2", server.fleet.tokens.issue(device="pump-1"))
    new = server.join("pump-1", server.fleet.tokens.issue(["b"], device="pump-1")).certificate_pem

    assert server.fleet.devices.device_of(der(new)) == "pump-1"
    with pytest.raises(AuthError, match="revoked"):
        server.fleet.devices.device_of(der(old))
    revoked = x509.load_pem_x509_crl((server.folder / "crl.pem").read_bytes())
    assert [entry.serial_number for entry in revoked] == [
        x509.load_pem_x509_certificate(old.encode()).serial_number
    ]


def test_revoked_name_needs_a_token_of_its_own_to_come_back(server: Any) -> None:
    server.join("pump-1")
    server.fleet.devices.revoke("pump-1", "stolen")
    with pytest.raises(NameTakenError):
        server.join("pump-1")

    server.join("pump-1", server.fleet.tokens.issue(device="pump-1"))
    assert server.fleet.devices.get("pump-1").status == "active"


def test_keys_are_told_of(server: Any) -> None:
    heard: list[tuple[str, bytes]] = []
    server.fleet.enrolment.on_key.append(lambda device, spki: heard.append((device, spki)))
    first, second = new_key(), new_key()
    server.join("pump-1", csr=signing_request(first, "pump-1"))
    server.later(seconds=1)
    server.fleet.enrolment.renew("pump-1", signing_request(second, "pump-1"))

    keys = [spki_of(first.public_key()), spki_of(second.public_key())]
    assert heard == [("pump-1", keys[0]), ("pump-1", keys[1])]
    assert server.fleet.devices.public_keys("pump-1") == (keys[1], keys[0])


def test_renewal_leaves_the_old_certificate_a_day(server: Any) -> None:
    old = der(server.join("pump-1").certificate_pem)
    server.later(days=20)
    new = der(server.fleet.enrolment.renew("pump-1", signing_request(new_key(), "pump-1")).certificate_pem)

    assert server.fleet.devices.device_of(old) == server.fleet.devices.device_of(new) == "pump-1"
    server.later(days=1)
    with pytest.raises(AuthError, match="replaced"):
        server.fleet.devices.device_of(old)
    assert server.fleet.devices.device_of(new) == "pump-1"
    server.later(days=28)
    assert server.fleet.devices.device_of(new) == "pump-1"


def test_renewal_needs_a_new_key_and_repeats_a_lost_answer(server: Any) -> None:
    first, second = signing_request(new_key(), "pump-1"), signing_request(new_key(), "pump-1")
    server.join("pump-1", csr=first)
    server.later(days=20)
    with pytest.raises(AuthError, match="new key"):
        server.fleet.enrolment.renew("pump-1", first)
    renewed = server.fleet.enrolment.renew("pump-1", second)

    assert server.fleet.enrolment.renew("pump-1", second) == renewed
    with pytest.raises(AuthError, match="new key"):
        server.fleet.enrolment.renew("pump-1", first)


def test_renewals_are_bounded_and_possible_again_later(server: Any) -> None:
    server.join("pump-1")
    for _ in range(3):
        server.later(seconds=1)
        server.fleet.enrolment.renew("pump-1", signing_request(new_key(), "pump-1"))
    with pytest.raises(AuthError, match="within a day"):
        server.fleet.enrolment.renew("pump-1", signing_request(new_key(), "pump-1"))

    server.later(days=1, seconds=1)
    server.fleet.enrolment.renew("pump-1", signing_request(new_key(), "pump-1"))


@pytest.mark.parametrize("device", ["pump-1", "never-joined"])
def test_who_is_not_active_cannot_renew(server: Any, device: str) -> None:
    server.join("pump-1")
    server.fleet.devices.revoke("pump-1", "stolen")

    with pytest.raises(AuthError, match="not an active device"):
        server.fleet.enrolment.renew(device, signing_request(new_key(), device))


@pytest.mark.parametrize(
    "wrong",
    [{"life_s": 0}, {"life_s": 1e9}, {"groups": ["A b"]}, {"groups": ["g"] * 17}, {"device": "server"}],
)
def test_tokens_out_of_bounds_are_not_made(server: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        server.fleet.tokens.issue(**wrong)

    assert server.fleet.tokens.all() == []


def test_tokens_are_listed_without_secrets(server: Any) -> None:
    token = server.fleet.tokens.issue(["g"], life_s=60, device="pump-1")
    server.join("pump-1", token)
    (listed,) = server.fleet.tokens.all()

    assert (listed.id, listed.groups, listed.device, listed.used_by) == (token.id, ("g",), "pump-1", "pump-1")
    assert listed.expires_at - listed.created_at == timedelta(seconds=60)
    assert token.secret not in repr(listed)
