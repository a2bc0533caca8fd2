"""The repository's own files byte by byte: a server notices damage, names it, and signs nothing on top of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.delivery import Backend

from hedgerow.server.delivery.repository import RepositoryState
from hedgerow.shared.errors import StorageError

STRIDE = 13
ROLES = ("root", "targets", "snapshot", "timestamp")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    made = Backend(tmp_path_factory.mktemp("repository"))
    made.release()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def mended(backend: Backend) -> Iterator[None]:
    folder = backend.repository.folder / "metadata"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    yield
    for path in folder.iterdir():
        if path not in before:
            path.unlink()
    for path, data in before.items():
        path.write_bytes(data)


def newest(backend: Backend, role: str) -> Path:
    """Return the file of a role that is in force."""
    found = list((backend.repository.folder / "metadata").glob(f"*{role}.json"))
    return max(found, key=lambda path: int("0" + path.name.partition(".")[0].removeprefix("timestamp")))


def looked_at(backend: Backend) -> RepositoryState | None:
    """Return what the repository says, None where it is called damaged."""
    try:
        return backend.repository.state()
    except StorageError as error:
        assert str(backend.repository.folder) in str(error)
        return None


@pytest.mark.parametrize("role", ROLES)
def test_a_file_with_any_byte_changed_is_called_damaged_or_says_the_same(backend: Backend, role: str) -> None:
    path, true = newest(backend, role), backend.repository.state()
    whole, damaged = path.read_bytes(), 0
    places = range(0, len(whole), STRIDE)
    for place in places:
        flip = 1 << place % 8
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        found = looked_at(backend)
        damaged += found is None
        assert found is None or (found.targets, found.snapshot) == (true.targets, true.snapshot), place
    # The root has nothing above it that names its bytes: only what is signed counts there.
    assert damaged > 0.5 * len(places)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"\xff\xfe\x00", b'{"signed": {}}', b"["])
def test_a_file_of_garbage_is_called_damaged(backend: Backend, role: str, content: bytes) -> None:
    newest(backend, role).write_bytes(content)

    assert looked_at(backend) is None


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_file_that_is_gone_is_named(backend: Backend, role: str) -> None:
    newest(backend, role).unlink()

    assert looked_at(backend) is None


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_nothing_is_published_over_damage_and_all_goes_on_once_it_is_mended(
    backend: Backend, role: str
) -> None:
    path = newest(backend, role)
    whole = path.read_bytes()
    listing = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    path.write_bytes(whole[:-20])
    with pytest.raises(StorageError):
        backend.release("other")
    path.write_bytes(whole)

    assert {one.name: one.read_bytes() for one in path.parent.iterdir()} == listing
    assert looked_at(backend) is not None


def signed_again(data: bytes, **changes: Any) -> bytes:
    """Return metadata with changed fields under its old signatures."""
    found = json.loads(data)
    found["signed"] |= changes
    return json.dumps(found).encode()


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
@pytest.mark.parametrize("changes", [{"version": 1_000}, {"expires": "2099-01-01T00:00:00Z"}])
def test_a_change_without_a_signature_is_damage(backend: Backend, role: str, changes: dict[str, Any]) -> None:
    path = newest(backend, role)
    path.write_bytes(signed_again(path.read_bytes(), **changes))

    assert looked_at(backend) is None
