"""Flower's node authentication: each request carries the node's key and a signed timestamp."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER

from hedgerow.shared.errors import StorageError

_CLOSE = timedelta(seconds=2)
"""The header has whole seconds, and an answer takes its time."""


class NodeSigner:
    """Signs with the device's key, which is the certificate's: the gateway refuses any other.

    Raises StorageError if the key cannot be read.
    """

    def __init__(self, key_file: Path) -> None:
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
            raise StorageError(f"{key_file}: cannot be used as the device's key: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StorageError(f"{key_file}: expected an elliptic-curve key, as joining makes it")
        self._key = key
        self._behind = timedelta(0)
        self.public_pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def correct(self, date: str) -> bool:
        """Sign by the server's clock from now on, if its ``date`` (RFC 9110, section 5.6.7) is well away from this one's.

        Return whether that changes what is signed. Flower refuses a timestamp five seconds ahead of its own clock, and a
        board's clock may be wrong by minutes. The date came over mutual TLS: who sends a wrong one is the server.
        """
        try:
            behind = parsedate_to_datetime(date) - datetime.now(UTC)
        except (ValueError, TypeError):
            return False
        if abs(behind - self._behind) < _CLOSE:
            return False
        self._behind = behind
        return True

    def headers(self) -> dict[str, str]:
        """Return the headers of one request, signed with the time now, by the server's clock where that is known."""
        timestamp = (datetime.now(UTC) + self._behind).isoformat()
        signature = self._key.sign(timestamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self.public_pem).decode("ascii"),
            TIMESTAMP_HEADER: timestamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
        }
