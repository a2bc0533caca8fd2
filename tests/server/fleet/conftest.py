from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hedgerow.edge_agent.join.identity import signing_request
from hedgerow.server.bus import Bus
from hedgerow.server.fleet import Fleet
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.pki.certificates import new_key
from hedgerow.server.store.database import Base, Database, utc_now
from hedgerow.shared.join_token import JoinToken
from hedgerow.shared.messages import JoinRequest, JoinResponse


class Server:
    """The fleet's services over a real database and authority, with a clock that tests move."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = utc_now()
        exists = (folder / "ca.key.pem").exists()
        self.authority = CertificateAuthority.load(folder) if exists else CertificateAuthority.create(folder)
        self.database = Database(f"sqlite:///{folder / 'test.db'}")
        Base.metadata.create_all(self.database.engine)
        self.bus = Bus()
        self.fleet = Fleet(self.database, self.bus, self.authority, tuf_root=lambda: "{}", now=self.clock)

    def clock(self) -> datetime:
        return self.now

    def later(self, **delta: float) -> None:
        self.now += timedelta(**delta)

    def again(self) -> Server:
        """The same server after a restart."""
        other = Server(self.folder)
        other.now = self.now
        other.fleet.devices.load()
        other.fleet.desired.load()
        other.fleet.heartbeats.load()
        return other

    def join(self, device: str, token: JoinToken | None = None, csr: str | None = None) -> JoinResponse:
        used = token or self.fleet.tokens.issue()
        csr = csr or signing_request(new_key(), device)
        return self.fleet.enrolment.join(JoinRequest(used.id, used.secret, device, csr))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.database.close()
