"""What a device can and cannot fetch, asked over a real socket with TLS."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from tests.support.delivery import Backend, Certificates, Faults, https_server, routed

from hedgerow.server.delivery.routes import routes


class Client:
    """Asks the server as a device, sending paths exactly as given."""

    def __init__(self, url: str, certificates: Certificates, folder: Path) -> None:
        self._address = urlsplit(url)
        (folder / "key.pem").write_bytes(certificates.device_key)
        (folder / "cert.pem").write_bytes(certificates.device_cert)
        self._context = ssl.create_default_context(cafile=str(certificates.ca))
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        host, port = self._address.hostname or "", self._address.port
        connection = http.client.HTTPSConnection(host, port, context=self._context, timeout=60)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Backend, Client]]:
    folder = tmp_path_factory.mktemp("routes")
    backend = Backend(folder / "server")
    backend.release(files={"m.onnx": bytes(range(256)) * 8})
    (backend.repository.folder / "targets" / "private").write_bytes(b"secret")
    certificates = Certificates(folder / "certificates")
    with https_server(Faults(routed(backend)), certificates) as url:
        yield backend, Client(url, certificates, folder)
    backend.close()


def artefact(backend: Backend) -> str:
    sha = backend.registry.manifest("pump", 1).artefacts[0].sha256
    return f"/v1/device/tuf/targets/bundles/pump/1/{sha}.m.onnx"


def test_metadata_is_served(world: tuple[Backend, Client]) -> None:
    backend, client = world

    assert client.get("/v1/device/tuf/metadata/1.root.json") == (200, backend.repository.root_bytes())
    assert client.get("/v1/device/tuf/metadata/timestamp.json")[0] == 200


def test_a_range_gives_exactly_those_bytes(world: tuple[Backend, Client]) -> None:
    backend, client = world
    whole = bytes(range(256)) * 8

    assert client.get(artefact(backend)) == (200, whole)
    assert client.get(artefact(backend), Range="bytes=2000-") == (206, whole[2000:])
    assert client.get(artefact(backend), Range="bytes=10-19") == (206, whole[10:20])


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,4-5", "bytes=-5", "bytes=", "lines=1-2", "bytes=99999-", "bytes=0-" + "9" * 40]
)
def test_a_range_that_resuming_does_not_need_is_refused(world: tuple[Backend, Client], asked: str) -> None:
    backend, client = world

    assert client.get(artefact(backend), Range=asked)[0] == 416


def test_a_range_that_ends_before_it_begins_is_refused(world: tuple[Backend, Client]) -> None:
    backend, client = world

    assert client.get(artefact(backend), Range="bytes=9-3")[0] in (400, 416)


@pytest.mark.parametrize(
    "path",
    [
        "metadata/../../secrets/tuf",
        "metadata/..%2f..%2fsecrets",
        "metadata/2.root.json",
        "metadata/.timestamp.json.ab12",
        "metadata/%2e%2e",
        "targets/private",
        "targets/../metadata/timestamp.json",
        "targets/%2e%2e/metadata/timestamp.json",
        "targets//etc/passwd",
        "targets/bundles/pump/1/",
        "targets/bundles/pump/1/m.onnx",
        "targets/bundles/pump/../pump/1/m.onnx",
        "targets/bundles/pump/2/" + "0" * 64 + ".m.onnx",
        "targets/bundles/pump/1/" + "0" * 64 + ".m.onnx%00",
    ],
)
def test_what_is_not_published_is_not_there(world: tuple[Backend, Client], path: str) -> None:
    assert world[1].get(f"/v1/device/tuf/{path}")[0] == 404


def test_a_request_without_a_device_is_refused(world: tuple[Backend, Client], tmp_path: Path) -> None:
    backend, _ = world
    certificates = Certificates(tmp_path / "certificates")
    app = Starlette(routes=routes(backend.repository.folder))
    with https_server(app, certificates) as url:
        client = Client(url, certificates, tmp_path)

        assert client.get("/v1/device/tuf/metadata/1.root.json")[0] == 403
        assert client.get(artefact(backend))[0] == 403
