"""Where an agent keeps its things: one folder, known names."""

from __future__ import annotations

from pathlib import Path

import msgspec

DEFAULT_HOME = Path("/var/lib/hedgerow")


class IdentityFiles(msgspec.Struct, frozen=True):
    """One generation of a device's identity; key and certificate of it always belong together."""

    key: Path
    certificate: Path
    ca: Path
    facts: Path


class AgentHome:
    """The paths of an agent's home. Nothing is created until something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "agent.toml"
        self.identity = path / "identity"
        self.identities = path / "identities"
        self.joining = path / "joining"
        self.tuf_root = path / "tuf" / "root.json"
        self.tuf_metadata = path / "tuf" / "metadata"
        self.profile = path / "profile.toml"
        self.samples = path / "samples.db"
        self.outbox = path / "outbox.db"
        self.ledger = path / "ledger.db"
        self.slots = path / "slots"
        self.cache = path / "cache"
        self.clock = path / "clock.json"
        self.api_token = path / "api-token"
        self.api_port_note = path / "api-port"

    @property
    def key(self) -> Path:
        """The device's private key (PEM, owner only)."""
        return self.identity / "key.pem"

    @property
    def certificate(self) -> Path:
        """The device's certificate (PEM)."""
        return self.identity / "cert.pem"

    @property
    def ca(self) -> Path:
        """The fleet's CA (PEM), the only one that the agent trusts for its server."""
        return self.identity / "ca.pem"

    def joined(self) -> bool:
        """Tell whether this home belongs to a device that joined a fleet."""
        return self.config.exists() and self.key.exists() and self.certificate.exists()

    def identity_files(self) -> IdentityFiles:
        """Return the present identity. A renewal makes a new generation; the paths returned stay with the old one."""
        folder = self.identity.resolve()
        return IdentityFiles(
            folder / "key.pem", folder / "cert.pem", folder / "ca.pem", folder / "facts.json"
        )
