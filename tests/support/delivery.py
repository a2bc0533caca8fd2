"""A fleet's delivery side for tests: real registry, real TUF repository, real mTLS server, one device's home."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
import uvicorn
from starlette.applications import Starlette

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.slots import Slots
from hedgerow.edge_agent.updater.result import UpdateResult
from hedgerow.edge_agent.updater.supervise import UpdaterProcess
from hedgerow.server.bus import Bus
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.delivery.routes import routes
from hedgerow.server.registry import Registry
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Base, Database
from hedgerow.shared.bundle import (
    Artefact,
    GateCheck,
    Lineage,
    Manifest,
    PrivacyReport,
    encode_manifest,
    sha256_hex,
)
from hedgerow.shared.messages import BundleTarget
from hedgerow.shared.specs import TensorSpec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]


def manifest_of(model: str, version: int, files: dict[str, bytes], **changes: Any) -> Manifest:
    """Return a manifest that promises ``files``; the first is for ONNX Runtime, the others for LiteRT."""
    artefacts = tuple(
        Artefact(name, "litert" if number else "onnxruntime", "int8", sha256_hex(data), len(data))
        for number, (name, data) in enumerate(files.items())
    )
    values: dict[str, Any] = {
        "schema": 1,
        "model": model,
        "version": version,
        "task": "anomaly",
        "input": TensorSpec("window", "float32", (60, 8), "window"),
        "output": TensorSpec("y", "float32", (60, 8), "window"),
        "recipe": "anomaly-autoencoder",
        "parameters": {},
        "artefacts": artefacts,
        "golden": (),
        "gate": (GateCheck("agreement", True, 0.99, 0.95),),
        "scores": {"loss": 0.1},
        "lineage": Lineage("job-1", "pump", 5, "anomaly-autoencoder", "h", sha256_hex(b"w"), "raw-1"),
        "privacy": PrivacyReport(
            "example", "sample", "add-or-remove-one", "poisson", 3.0, 1e-5, "pld", "os", ("update",), ()
        ),
    }
    return Manifest(**{**values, **changes})


def write_bundle(folder: Path, manifest: Manifest, files: dict[str, bytes]) -> Path:
    """Write a bundle folder as packaging does."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


class Backend:
    """Registry and TUF repository of one server, in ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.database = Database(f"sqlite:///{home}/hedgerow.db")
        Base.metadata.create_all(self.database.engine)
        self.bus = Bus()
        self.registry = Registry(self.database, Blobs(home / "blobs"), self.bus)
        self.moved_s = 0.0
        self.repository = TufRepository(home / "tuf", KeyFolder(home / "secrets" / "tuf"), self.now)
        self.repository.create()

    def now(self) -> datetime:
        """The repository's clock, moved by ``moved_s``."""
        return datetime.now(UTC) + timedelta(seconds=self.moved_s)

    def release(self, model: str = "pump", *, files: dict[str, bytes] | None = None) -> BundleTarget:
        """Register and publish the next version of ``model``; return what a device would be told."""
        version = self.registry.next_version(model)
        content = files or {
            "model.onnx": b"onnx-%d " % version * 3000,
            "model.tflite": b"lite-%d " % version * 500,
        }
        folder = self.home / "work" / f"{model}-{version}"
        registered = self.registry.register(
            write_bundle(folder, manifest_of(model, version, content), content)
        )
        self.repository.publish(self.registry.open(model, version))
        return BundleTarget(model, version, registered.manifest_sha256)

    def close(self) -> None:
        """Close the database."""
        self.database.close()


class Certificates:
    """One fleet's CA with a server's and a device's certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = trustme.CA()
        server, device = self.authority.issue_cert("127.0.0.1"), self.authority.issue_cert("dev-1.fleet")
        self.ca, self.server, self.device = folder / "ca.pem", folder / "server.pem", folder / "device.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        server.private_key_and_cert_chain_pem.write_to_path(self.server)
        self.device_key, self.device_cert = device.private_key_pem.bytes(), device.cert_chain_pems[0].bytes()


class Faults:
    """Stands between the device and the real routes and spoils answers by rules: (path pattern, what to do)."""

    def __init__(self, app: ASGI | None = None) -> None:
        self.put(app or Starlette())

    def put(self, app: ASGI) -> None:
        """Stand before ``app`` from now on, without rules and with nothing counted."""
        self.app = app
        self.rules: list[tuple[re.Pattern[str], Callable[[ASGI, Scope, Receive, Send], Awaitable[None]]]] = []
        self.requests: list[tuple[str, str]] = []
        self.body_bytes = 0

    def on(self, pattern: str, fault: Callable[[ASGI, Scope, Receive, Send], Awaitable[None]]) -> None:
        """Hand requests whose path matches ``pattern`` to ``fault``."""
        self.rules.append((re.compile(pattern), fault))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["hedgerow.device"] = "dev-1"
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.requests.append((scope["path"], headers.get("range", "")))

        async def counted(message: MutableMapping[str, Any]) -> None:
            self.body_bytes += len(message.get("body", b""))
            await send(message)

        for pattern, fault in self.rules:
            if pattern.search(scope["path"]):
                return await fault(self.app, scope, receive, counted)
        return await self.app(scope, receive, counted)


def cut_after(n_bytes: int, times: int) -> Callable[[ASGI, Scope, Receive, Send], Awaitable[None]]:
    """Break the connection after ``n_bytes`` of the body, for the first ``times`` requests."""
    left = [times]

    async def fault(app: ASGI, scope: Scope, receive: Receive, send: Send) -> None:
        if left[0] == 0:
            return await app(scope, receive, send)
        left[0] -= 1
        sent = 0

        async def cutting(message: MutableMapping[str, Any]) -> None:
            nonlocal sent
            body = message.get("body", b"")
            if sent + len(body) > n_bytes:
                await send({**message, "body": body[: n_bytes - sent], "more_body": True})
                raise ConnectionAbortedError("cut by the test")
            sent += len(body)
            await send(message)

        return await app(scope, receive, cutting)

    return fault


def instead(
    status: int, body: bytes, *, endless: bool = False
) -> Callable[[ASGI, Scope, Receive, Send], Awaitable[None]]:
    """Answer with ``body``; again and again without end if ``endless``."""

    async def fault(app: ASGI, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await receive()
        gone = asyncio.ensure_future(receive())
        while endless and not gone.done():
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(0)
        gone.cancel()
        await send({"type": "http.response.body", "body": body})

    return fault


@contextmanager
def https_server(app: ASGI, certificates: Certificates) -> Iterator[str]:
    """Serve ``app`` over TLS on loopback, client certificates required; yield the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_level="critical",
        lifespan="off",
        ws="none",
        ssl_certfile=str(certificates.server),
        ssl_ca_certs=str(certificates.ca),
        ssl_cert_reqs=int(ssl.CERT_REQUIRED),
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="test-https")
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


class Device:
    """One device's home."""

    def __init__(self, path: Path, url: str) -> None:
        self.home = AgentHome(path)
        self.url = url

    def join(self, certificates: Certificates, tuf_root: bytes) -> None:
        """Write what joining leaves: identity and the TUF root of that moment."""
        self.home.identity.mkdir(parents=True)
        self.home.key.write_bytes(certificates.device_key)
        self.home.certificate.write_bytes(certificates.device_cert)
        self.home.ca.write_bytes(certificates.ca.read_bytes())
        self.home.tuf_root.parent.mkdir()
        self.home.tuf_root.write_bytes(tuf_root)

    def updater(self, **options: Any) -> UpdaterProcess:
        """Return what the agent uses to update."""
        return UpdaterProcess(self.home.path, self.url, **options)


def routed(backend: Backend) -> ASGI:
    """Return the delivery routes of ``backend``."""
    return Starlette(routes=routes(backend.repository.folder))


class World:
    """One server and one device; the device serves version 1 of ``pump``, confirmed."""

    def __init__(
        self, folder: Path, app: Faults, backend: Backend, device: Device, first: BundleTarget
    ) -> None:
        self.folder, self.app, self.backend, self.device = folder, app, backend, device
        self.slots = Slots(device.home.slots, "pump")
        self.first = first

    @property
    def metadata(self) -> Path:
        return self.backend.repository.folder / "metadata"

    def update(self, target: BundleTarget) -> UpdateResult:
        return self.device.updater(deadline_s=30).run(target)

    def serve(self, target: BundleTarget) -> None:
        self.slots.activate(target.manifest_sha256)
        installed = self.slots.check().installed
        assert installed is not None
        self.slots.confirm(installed)

    def refused(self, target: BundleTarget, *reasons: str) -> UpdateResult:
        """Update and check that it is refused for one of ``reasons`` and that version 1 still serves."""
        result = self.update(target)
        assert result.reason in reasons, result
        assert not result.ok
        choice = self.slots.check()
        assert choice.installed is not None
        assert (choice.installed.version, choice.source) == (1, "champion")
        assert not (self.slots.incoming / "installed.json").exists()
        return result

    def target_file(self, version: int, ending: str) -> Path:
        (path,) = (self.backend.repository.folder / "targets/bundles/pump" / str(version)).glob(f"*.{ending}")
        return path
