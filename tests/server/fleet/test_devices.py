from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hedgerow.shared.errors import AuthError, ConfigError


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def test_revoked_device_is_shut_out_at_once_and_told_of(server: Any) -> None:
    certificate = der(server.join("pump-1").certificate_pem)
    other = der(server.join("pump-2").certificate_pem)
    peer = server.fleet.devices.identify(certificate)
    heard: list[str] = []
    server.fleet.devices.on_revoked.append(heard.append)
    server.fleet.devices.revoke("pump-1", "stolen")

    assert not server.fleet.devices.is_active(peer.device, peer.serial)
    with pytest.raises(AuthError, match="revoked"):
        server.fleet.devices.device_of(certificate)
    assert heard == ["pump-1"]
    assert server.fleet.devices.device_of(other) == "pump-2"
    listed = server.fleet.devices.get("pump-1")
    assert (listed.status, listed.revoked_why) == ("revoked", "stolen")
    assert [device.name for device in server.fleet.devices.all(active_only=True)] == ["pump-2"]


def test_revocation_outlives_a_restart(server: Any) -> None:
    gone, stays = (der(server.join(name).certificate_pem) for name in ("gone", "stays"))
    server.fleet.devices.revoke("gone", "stolen")
    restarted = server.again()

    assert restarted.fleet.devices.device_of(stays) == "stays"
    with pytest.raises(AuthError, match="revoked"):
        restarted.fleet.devices.device_of(gone)
    restarted.database.close()


def test_revocation_list_holds_the_revoked_until_they_end(server: Any) -> None:
    pem = server.join("pump-1").certificate_pem
    server.fleet.devices.revoke("pump-1", "stolen")
    serial = x509.load_pem_x509_certificate(pem.encode()).serial_number

    def listed() -> list[int]:
        return [e.serial_number for e in x509.load_pem_x509_crl((server.folder / "crl.pem").read_bytes())]

    assert listed() == [serial]
    server.later(days=31)
    server.fleet.devices.sign_revocation_list()
    assert listed() == []


def test_unknown_device_cannot_be_revoked(server: Any) -> None:
    with pytest.raises(ConfigError, match="no device named"):
        server.fleet.devices.revoke("nobody", "")


def test_certificate_ends_by_itself(server: Any) -> None:
    certificate = der(server.join("pump-1").certificate_pem)
    peer = server.fleet.devices.identify(certificate)
    server.later(days=30)

    assert not server.fleet.devices.is_active(peer.device, peer.serial)
    with pytest.raises(AuthError):
        server.fleet.devices.device_of(certificate)
    server.fleet.devices.registry.drop_ended()
    with pytest.raises(AuthError):
        server.fleet.devices.device_of(certificate)


def test_device_and_serial_must_belong_together(server: Any) -> None:
    first, second = (
        server.fleet.devices.identify(der(server.join(name).certificate_pem)) for name in ("a", "b")
    )

    assert server.fleet.devices.is_active("a", first.serial)
    assert not server.fleet.devices.is_active("a", second.serial)
    assert not server.fleet.devices.is_active("a", 12345)


def test_unknown_device_is_none(server: Any) -> None:
    assert server.fleet.devices.get("nobody") is None
    assert server.fleet.devices.public_keys("nobody") == ()
