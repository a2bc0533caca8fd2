"""The device's key as Flower's node authentication uses it: damaged, it is named, and never signs as another."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from hedgerow.edge_agent.join.identity import make_key
from hedgerow.edge_agent.trainer.fleet.signing import NodeSigner
from hedgerow.shared.errors import StorageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def test_each_request_is_signed_with_its_time_by_the_devices_key(path: Path) -> None:
    signer = NodeSigner(path)

    headers = signer.headers()

    assert b64decode(headers["flwr-public-key"]) == signer.public_pem
    public = load_pem_public_key(signer.public_pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    signature = b64decode(headers["flwr-signature"])
    public.verify(signature, headers["flwr-timestamp"].encode(), ec.ECDSA(hashes.SHA256()))
    assert signer.headers()["flwr-timestamp"] > headers["flwr-timestamp"]


@pytest.mark.parametrize("flip", [0x01, 0x04, 0x80])
def test_a_key_with_any_byte_changed_is_named_or_is_still_an_elliptic_curve_key(
    path: Path, flip: int
) -> None:
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        try:
            NodeSigner(path)
        except StorageError as error:
            assert str(path) in str(error)


def test_a_key_of_another_kind_is_refused(path: Path) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(StorageError, match="expected an elliptic-curve key, as joining makes it"):
        NodeSigner(path)


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.pem: cannot be used as the device's key"):
        NodeSigner(tmp_path / "none.pem")
