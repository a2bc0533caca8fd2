"""The certificates that may be used now, in memory: what every connection and every request is checked against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from hedgerow.server.pki.trust import KnownCertificate, Peer, judge_certificate, judge_standing
from hedgerow.shared.errors import AuthError

MAX_REMEMBERED: Final = 20_000


class CertificateRegistry:
    """Knows every certificate that was issued and has not ended. Safe from any thread.

    A certificate's signature and names are judged once and remembered by its bytes; its standing is judged each time.
    """

    def __init__(self, ca: x509.Certificate, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._ca = ca
        self._now = now
        self._known: dict[int, KnownCertificate] = {}
        self._judged: dict[bytes, Peer] = {}

    def replace(self, certificates: Iterable[KnownCertificate]) -> None:
        """Add certificates, or put them in the place of what was known under their serials."""
        for certificate in certificates:
            self._known[certificate.serial] = certificate

    def identify(self, der: bytes) -> Peer:
        """Return who presents the certificate ``der``. Raises AuthError with the reason."""
        peer = self._judged.get(der)
        if peer is not None:
            self.check(peer)
            return peer
        peer = judge_certificate(der, self._ca, self._known.get, self._now())
        if len(self._judged) >= MAX_REMEMBERED:
            self._judged.clear()
        self._judged[der] = peer
        return peer

    def check(self, peer: Peer) -> None:
        """Make sure that a peer is still welcome. Raises AuthError with the reason."""
        record = self._known.get(peer.serial)
        if record is None or record.device != peer.device:
            raise AuthError("the certificate is not registered here")
        judge_standing(record, self._now())

    def drop_ended(self) -> None:
        """Forget certificates that have ended, so that memory holds only what may be presented."""
        now = self._now()
        for serial in [s for s, record in list(self._known.items()) if record.usable_until <= now]:
            self._known.pop(serial, None)
        self._judged.clear()
