from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.pki.certificates import new_key
from hedgerow.server.pki.requests import key_of_request, spki_of
from hedgerow.shared.errors import ContentError


def request(
    *names: str, key: object = None, extensions: tuple[x509.ExtensionType, ...] = ()
) -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = key if key is not None else new_key()
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, algorithm)  # type: ignore[arg-type]


def pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(Encoding.PEM).decode()


def test_good_request_yields_its_key() -> None:
    key = new_key()

    assert spki_of(key_of_request(pem(request("pump-1", key=key)), "pump-1")) == spki_of(key.public_key())


def test_extensions_are_ignored_not_refused() -> None:
    asked = request("pump-1", extensions=(x509.BasicConstraints(ca=True, path_length=None),))

    assert key_of_request(pem(asked), "pump-1").curve.name == "secp256r1"


@pytest.mark.parametrize(
    "names", [(), ("pump-2",), ("pump-1", "pump-1"), ("pump-2", "pump-1"), ("pump-1\x00",)]
)
def test_other_names_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ContentError, match="common name"):
        key_of_request(pem(request(*names)), "pump-1")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p384", "ed25519", "rsa"],
)
def test_other_keys_are_refused(key: object) -> None:
    with pytest.raises(ContentError, match="P-256"):
        key_of_request(pem(request("pump-1", key=key)), "pump-1")


def test_request_signed_by_another_key_is_refused() -> None:
    der = bytearray(request("pump-1").public_bytes(Encoding.DER))
    other = request("pump-1").public_bytes(Encoding.DER)
    body = x509.load_der_x509_csr(bytes(der)).tbs_certrequest_bytes
    forged = bytes(der).replace(body, x509.load_der_x509_csr(other).tbs_certrequest_bytes)
    text = (
        "-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.b64encode(forged).decode()
        + "\n-----END CERTIFICATE REQUEST-----\n"
    )

    with pytest.raises(ContentError, match="not signed by its own key"):
        key_of_request(text, "pump-1")


@pytest.mark.parametrize(
    "text",
    ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\n!!\n-----END CERTIFICATE REQUEST-----", "\x00" * 100],
)
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(ContentError, match="PKCS#10"):
        key_of_request(text, "pump-1")


@given(st.data())
def test_a_damaged_request_is_refused_or_still_proves_its_key(data: st.DataObject) -> None:
    der = bytearray(GOOD_DER)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    text = (
        "-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.b64encode(der).decode()
        + "\n-----END CERTIFICATE REQUEST-----\n"
    )
    try:
        key = key_of_request(text, "pump-1")
    except ContentError:
        return
    assert isinstance(key.curve, ec.SECP256R1)


def test_a_request_of_an_unknown_version_is_refused() -> None:
    der = bytearray(GOOD_DER)
    der[der.index(b"\x02\x01\x00") + 2] = 1  # the version, v1 is 0
    text = f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE REQUEST-----\n"

    with pytest.raises(ContentError, match="PKCS#10"):
        key_of_request(text, "pump-1")


@given(st.text(max_size=400))
def test_any_text_is_refused_cleanly(text: str) -> None:
    with pytest.raises(ContentError):
        key_of_request(text, "pump-1")


GOOD_DER = request("pump-1").public_bytes(Encoding.DER)
