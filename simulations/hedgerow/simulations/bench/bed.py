"""A real gateway with its own CA on loopback, and identities of devices: what benchmarks and tests stand on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.server.flower import FabInfo, FlowerLink, LinkConfig, device_mounts
from hedgerow.server.gateway import Gateway, GatewayConfig, gateway_context
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.pki.certificates import new_key
from hedgerow.shared.errors import AuthError


class Bed:
    """One CA and its devices, in ``folder``. Implements the gateway's ``Devices`` by the certificate's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = CertificateAuthority.create(folder / "pki")
        self.revoked: set[str] = set()

    def identity(self, device: str) -> IdentityFiles:
        """Make a device's key and certificate and return their paths."""
        home = self.folder / device
        files = IdentityFiles(home / "key.pem", home / "cert.pem", home / "ca.pem", home / "facts.json")
        if not files.certificate.exists():
            home.mkdir(parents=True, exist_ok=True)
            key = new_key()
            certificate = self.authority.issuer.device(device, key.public_key(), datetime.now(UTC))
            files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
            files.ca.write_text(self.authority.pem)
        return files

    def device_of(self, peer_cert_der: bytes) -> str:
        """Return the name in a certificate of this CA. Raises AuthError if it is revoked."""
        certificate = x509.load_der_x509_certificate(peer_cert_der)
        device = str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
        if device in self.revoked:
            raise AuthError(f"the certificate of {device} is revoked")
        return device

    @contextlib.asynccontextmanager
    async def serve(
        self,
        config: LinkConfig | None = None,
        *,
        fab: FabInfo | None = None,
        gateway: GatewayConfig | None = None,
    ) -> AsyncIterator[tuple[FlowerLink, str]]:
        """Run link and gateway; yields the link and the gateway's URL."""
        link = FlowerLink(config, fab=fab)
        pair = self.authority.server_pair()
        context = gateway_context(pair.certificate, pair.key, self.authority.folder / "ca.pem")
        listener = Gateway(
            gateway or GatewayConfig(drain_s=2),
            context,
            self,
            mounts=device_mounts(link),
            on_drain=link.drain,
        )
        await listener.start()
        try:
            yield link, f"https://127.0.0.1:{listener.port}"
        finally:
            await listener.stop()
