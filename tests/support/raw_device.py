"""A device that speaks to the gateway without the agent's manners: any path, any body, any node's name."""

from __future__ import annotations

import http.client
import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from google.protobuf.message import Message

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.edge_agent.link.tls import device_context, server_only_context
from hedgerow.edge_agent.trainer.fleet.signing import NodeSigner
from hedgerow.shared.identity import SERVER_NAME


@dataclass
class RawDevice:
    """One device, or nobody where ``identity`` has no certificate (``ca_file`` instead)."""

    url: str
    identity: IdentityFiles | None = None
    ca_file: str = ""
    kept: ssl.SSLSocket | None = field(default=None, repr=False)

    def connect(self) -> ssl.SSLSocket:
        """Return a TLS connection to the gateway."""
        context = (
            device_context(self.identity) if self.identity else server_only_context(ca_file=self.ca_file)
        )
        parts = urlsplit(self.url)
        plain = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)
        return context.wrap_socket(plain, server_hostname=SERVER_NAME)

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        keep: bool = False,
    ) -> tuple[int, bytes]:
        """Send one request as it is written and return status and body; ``keep`` reuses the connection."""
        connected = self.kept or self.connect()
        self.kept = connected if keep else None
        fields = {"host": "x", "content-length": str(len(body)), **(headers or {})}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items() if v)
        connected.sendall(head.encode() + b"\r\n" + body)
        response = http.client.HTTPResponse(connected, method=method)
        response.begin()
        answer = response.status, response.read()
        if not keep:
            connected.close()
        return answer

    def fleet(self, name: str, request: Message, *, signer: NodeSigner | None = None) -> tuple[int, bytes]:
        """Call one of Flower's fleet routes, signed by this device's key or another's."""
        assert self.identity is not None
        signer = signer or NodeSigner(self.identity.key)
        headers = {**signer.headers(), "content-type": "application/protobuf"}
        return self.request("POST", f"/v1/fleet/{name}", request.SerializeToString(), headers)


def claim(signer: NodeSigner, public_pem: bytes) -> dict[str, str]:
    """Return the headers of ``signer`` with another's public key in them."""
    return {**signer.headers(), "flwr-public-key": b64encode(public_pem).decode()}
