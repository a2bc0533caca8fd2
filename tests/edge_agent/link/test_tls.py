from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from hedgerow.edge_agent.link.tls import ClockError, explain, server_only_context
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.shared.errors import AuthError, StorageError, TransportError


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def test_context_is_strict(tmp_path: Path) -> None:
    context = server_only_context(ca_pem=CertificateAuthority.create(tmp_path).pem)

    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("pem", ["", "garbage", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"])
def test_what_is_no_ca_is_refused(pem: str) -> None:
    with pytest.raises((StorageError, ValueError)):
        server_only_context(ca_pem=pem or "x")


@pytest.mark.parametrize(
    "reason",
    [
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
    ],
)
def test_alerts_about_our_certificate_are_refusals(reason: str) -> None:
    explained = explain(tls_error(reason), "hub:1")

    assert isinstance(explained, AuthError)
    assert "hub:1" in str(explained) and "this device's certificate" in str(explained)


@pytest.mark.parametrize(
    "reason", ["WRONG_VERSION_NUMBER", "TLSV1_ALERT_INTERNAL_ERROR", "UNEXPECTED_EOF_WHILE_READING"]
)
def test_other_tls_trouble_is_worth_another_try(reason: str) -> None:
    assert isinstance(explain(tls_error(reason), "hub:1"), TransportError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (TimeoutError(), "no answer in time"),
        (OSError(113, "No route to host"), "No route to host"),
        (ConnectionAbortedError("the link is being shut"), "the link is being shut"),
    ],
)
def test_network_trouble_is_told_in_words(error: OSError, text: str) -> None:
    explained = explain(error, "hub:1")

    assert isinstance(explained, TransportError) and not isinstance(explained, ClockError)
    assert text in str(explained)
