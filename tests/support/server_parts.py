"""The server's parts over one folder, put together as the server does, without listeners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.delivery import manifest_of, write_bundle
from tests.support.fleet import heartbeat_of

from hedgerow.edge_agent.join.identity import signing_request
from hedgerow.server.app.home import ServerHome
from hedgerow.server.app.setup import set_up
from hedgerow.server.bus import Bus
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.fleet.service import Fleet
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.pki.certificates import new_key
from hedgerow.server.registry.service import Registry
from hedgerow.server.registry.values import ModelVersion
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Database
from hedgerow.shared.bundle import Lineage
from hedgerow.shared.messages import BundleReport, JoinRequest, RecipeReport, ReportedState

FILES = {"model.onnx": b"onnx", "model.tflite": b"lite"}


class Parts:
    """Fleet, registry and rollouts of a server that was set up in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.home: ServerHome = set_up(folder / "home", (), advertise=False)
        self.bus = Bus()
        self.database = Database(f"sqlite:///{self.home.database}")
        repository = TufRepository(self.home.tuf, KeyFolder(self.home.secrets / "tuf"))
        authority = CertificateAuthority.load(self.home.pki)
        self.fleet = Fleet(self.database, self.bus, authority, tuf_root=lambda: "{}")
        self.registry = Registry(self.database, Blobs(self.home.blobs), self.bus)
        self.rollouts = Rollouts(
            self.database, self.bus, registry=self.registry, repository=repository, desired=self.fleet.desired,
            active_devices=lambda: [d.name for d in self.fleet.devices.all(active_only=True)],
        )  # fmt: skip

    def join(self, device: str, *groups: str) -> None:
        """Let a device join."""
        token = self.fleet.tokens.issue(groups)
        request = JoinRequest(token.id, token.secret, device, signing_request(new_key(), device))
        self.fleet.enrolment.join(request)

    def report(self, device: str, profile: str = "pump", **changes: Any) -> ReportedState:
        """Let a device's heartbeat come in."""
        state = ReportedState(self.fleet.desired.get(device).revision, profile=profile, **changes)
        self.fleet.heartbeats.record(device, heartbeat_of(device, state=state))
        return state

    def serves(self, device: str, version: ModelVersion) -> ReportedState:
        """Let a device report that it serves a version."""
        bundle = BundleReport(
            version.model, version.version, version.manifest_sha256, "serving", "onnxruntime", "int8"
        )
        return self.report(device, bundles=(bundle,))

    def has_recipe(self, device: str, name: str, code_hash: str) -> None:
        """Let a device report an installed recipe."""
        self.report(device, recipes=(RecipeReport(name, code_hash),))

    def register(self, model: str = "pump", job_id: str = "j-1") -> ModelVersion:
        """Register the next version of a model, as made by ``job_id``."""
        version = self.registry.next_version(model)
        lineage = Lineage(job_id, model, 5, "anomaly-autoencoder", "h", "0" * 64, "raw-1")
        files = {name: data + str(version).encode() for name, data in FILES.items()}
        folder = self.home.work / f"made-{model}-{version}"
        return self.registry.register(
            write_bundle(folder, manifest_of(model, version, files, lineage=lineage), files)
        )
