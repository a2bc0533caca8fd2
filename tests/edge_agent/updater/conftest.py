"""A server and a device that serves version 1, made once and copied for each test; one HTTPS server for all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.delivery import Backend, Certificates, Device, Faults, World, https_server, routed

from hedgerow.shared.messages import BundleTarget


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def front(certificates: Certificates) -> Iterator[tuple[Faults, str]]:
    """The HTTPS server; each test puts its own routes behind it."""
    app = Faults()
    with https_server(app, certificates) as url:
        yield app, url


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, front: tuple[Faults, str]
) -> tuple[Path, BundleTarget]:
    folder = tmp_path_factory.mktemp("template")
    app, url = front
    backend = Backend(folder / "server")
    app.put(routed(backend))
    device = Device(folder / "device", url)
    device.join(certificates, backend.repository.root_bytes())
    first = backend.release()
    world = World(folder, app, backend, device, first)
    assert world.update(first).reason == "staged"
    world.serve(first)
    backend.close()
    return folder, first


@pytest.fixture
def world(tmp_path: Path, template: tuple[Path, BundleTarget], front: tuple[Faults, str]) -> Iterator[World]:
    source, first = template
    app, url = front
    for part in ("server", "device"):
        shutil.copytree(source / part, tmp_path / part, symlinks=True)
    backend = Backend(tmp_path / "server")
    app.put(routed(backend))
    yield World(tmp_path, app, backend, Device(tmp_path / "device", url), first)
    backend.close()
