"""The repository on disk: what a fresh tuf client makes of it, also after a crash at any write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.delivery import Backend
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from hedgerow.server.delivery import repository as repository_module
from hedgerow.server.delivery.files import link_or_copy
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import KEPT_VERSIONS, TufRepository
from hedgerow.shared.errors import AuthError, ContentError, StorageError
from hedgerow.shared.files import write_atomically

DAY_S = 86_400.0


class FolderFetcher(FetcherInterface):
    """Reads the repository's folder as a device would through HTTPS."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(url.removeprefix("folder:"))
        if not path.is_file():
            raise DownloadHTTPError("not here", 404)
        return iter([path.read_bytes()])


def listed(repository: TufRepository, root: bytes, cache: Path | None = None) -> dict[str, object]:
    """Refresh a client that trusts ``root`` and return the custom data of every target it then trusts."""
    with tempfile.TemporaryDirectory() as fresh:
        folder = f"folder:{repository.folder}"
        client = Updater(
            str(cache or fresh),
            f"{folder}/metadata",
            fresh,
            f"{folder}/targets",
            FolderFetcher(),
            bootstrap=root,
        )
        client.refresh()
        names = repository.state().targets.targets
        found = {name: client.get_targetinfo(name) for name in names}
        for info in found.values():
            assert info is not None
            client.download_target(info)
        return {name: info.unrecognized_fields["custom"] for name, info in found.items() if info}


class Crash(BaseException):
    """Stands for the machine losing power: nothing catches it, nothing is cleaned up."""


def crash_at(monkeypatch: pytest.MonkeyPatch, n: int, *, after: bool) -> list[str]:
    """Make the ``n``-th write crash, before or after it is done; return the names written."""
    written: list[str] = []

    def spoil(real: Callable[..., None], path_at: int) -> Callable[..., None]:
        def spoiled(*arguments: object) -> None:
            if len(written) == n and not after:
                raise Crash
            real(*arguments)
            written.append(str(arguments[path_at]))
            if len(written) == n + 1 and after:
                raise Crash

        return spoiled

    monkeypatch.setattr(repository_module, "write_atomically", spoil(write_atomically, 0))
    monkeypatch.setattr(repository_module, "link_or_copy", spoil(link_or_copy, 1))
    return written


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    made = Backend(tmp_path / "server")
    yield made
    made.close()


def test_a_published_bundle_is_listed_with_its_facts_and_its_bytes(backend: Backend) -> None:
    target = backend.release(files={"model.onnx": b"x"})

    assert listed(backend.repository, backend.repository.root_bytes()) == {
        f"bundles/pump/1/{name}": {"version": 1, "manifest_sha256": target.manifest_sha256}
        for name in ("manifest.json", "model.onnx")
    }


def test_publishing_again_signs_nothing(backend: Backend) -> None:
    backend.release()
    before = backend.repository.state().timestamp.version
    backend.repository.publish(backend.registry.open("pump", 1))

    assert backend.repository.state().timestamp.version == before


def test_a_yanked_bundle_is_unlisted_and_its_files_are_gone(backend: Backend) -> None:
    backend.release()
    backend.release()
    backend.repository.yank("pump", 1)
    backend.repository.yank("pump", 1)

    names = listed(backend.repository, backend.repository.root_bytes())
    assert {name.split("/")[2] for name in names} == {"2"}
    assert not (backend.repository.folder / "targets/bundles/pump/1").exists()
    assert not backend.repository.is_published("pump", 1)


def test_a_yank_leaves_the_registrys_own_blobs(backend: Backend) -> None:
    backend.release()
    backend.repository.yank("pump", 1)

    assert backend.registry.open("pump", 1).artefacts["model.onnx"].is_file()


def test_fresh_signatures_are_left_alone(backend: Backend) -> None:
    assert backend.repository.resign() == frozenset()


@pytest.mark.parametrize(
    ("days", "roles"),
    [
        (0.6, {"timestamp"}),
        (4, {"snapshot", "timestamp"}),
        (400, {"root", "targets", "snapshot", "timestamp"}),
    ],
)
def test_lapsing_signatures_are_made_again_and_verify(backend: Backend, days: float, roles: set[str]) -> None:
    root = backend.repository.root_bytes()
    backend.moved_s = days * DAY_S

    assert backend.repository.resign() == roles
    assert backend.repository.resign() == frozenset()
    if days < 1:
        listed(backend.repository, root)


def test_without_the_root_key_the_rest_is_still_signed(backend: Backend) -> None:
    (root_key,) = (backend.home / "secrets" / "tuf").glob("root.*")
    root_key.rename(backend.home / "kept-elsewhere.pem")
    backend.moved_s = 400 * DAY_S

    assert backend.repository.resign() == {"targets", "snapshot", "timestamp"}
    with pytest.raises(AuthError, match="put the root key back"):
        backend.repository.rotate("targets")


def test_publishing_without_a_signing_key_changes_nothing(backend: Backend) -> None:
    root = backend.repository.root_bytes()
    for key in (backend.home / "secrets" / "tuf").glob("targets.*"):
        key.unlink()

    with pytest.raises(AuthError, match="targets key"):
        backend.release()
    assert listed(backend.repository, root) == {}


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_rotated_key_is_followed_from_the_first_root_and_the_old_one_is_forgotten(
    backend: Backend, role: str
) -> None:
    first_root = backend.repository.root_bytes()
    old = set((backend.home / "secrets" / "tuf").glob(f"{role}.*"))
    backend.release()
    backend.repository.rotate(role)
    backend.release()
    backend.repository.rotate(role)

    assert len(listed(backend.repository, first_root)) == 6
    now = set((backend.home / "secrets" / "tuf").glob(f"{role}.*"))
    assert len(now) == 1
    assert not now & old


def test_an_unknown_role_is_not_rotated(backend: Backend) -> None:
    with pytest.raises(AuthError):
        backend.repository.rotate("mirrors")


def test_keys_are_readable_by_their_owner_only(backend: Backend) -> None:
    folder = backend.home / "secrets" / "tuf"

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_key_that_others_may_read_is_not_used(backend: Backend) -> None:
    for path in (backend.home / "secrets" / "tuf").glob("timestamp.*"):
        path.chmod(0o644)

    with pytest.raises(StorageError, match="chmod 600"):
        backend.release()


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_file_is_named(backend: Backend, content: bytes) -> None:
    (path,) = (backend.home / "secrets" / "tuf").glob("timestamp.*")
    path.write_bytes(content)

    with pytest.raises(StorageError, match=r"timestamp\..*not a private key"):
        backend.release()


def test_a_key_under_anothers_name_is_refused(backend: Backend) -> None:
    folder = backend.home / "secrets" / "tuf"
    (timestamp,), (snapshot,) = folder.glob("timestamp.*"), folder.glob("snapshot.*")
    timestamp.write_bytes(snapshot.read_bytes())

    with pytest.raises(StorageError, match="the key inside is another one"):
        KeyFolder(folder).signers("timestamp", [timestamp.name.split(".")[1]])


def test_a_damaged_repository_is_named_not_extended(backend: Backend) -> None:
    path = backend.repository.folder / "metadata" / "timestamp.json"
    changed = path.read_bytes().replace(b'"version":', b'"version":1')
    assert changed != path.read_bytes()
    path.write_bytes(changed)

    with pytest.raises(StorageError, match="damaged"):
        backend.release()


def test_old_metadata_is_removed_but_not_the_newest(backend: Backend) -> None:
    root = backend.repository.root_bytes()
    for _ in range(KEPT_VERSIONS + 4):
        backend.release(files={"m.onnx": os.urandom(4)})

    kept = len(list((backend.repository.folder / "metadata").glob("*.targets.json")))
    assert kept == KEPT_VERSIONS + 1
    assert len(listed(backend.repository, root)) == 2 * (KEPT_VERSIONS + 4)


def test_a_bundle_cannot_replace_one_that_is_published(backend: Backend) -> None:
    backend.release(files={"m.onnx": b"x"})
    opened = backend.registry.open("pump", 1)
    other = backend.home / "other"
    other.write_bytes(b"y")
    forged = type(opened)(
        opened.manifest, opened.manifest_bytes, "f" * 64, opened.manifest_path, {"m.onnx": other}
    )

    with pytest.raises(ContentError, match="other bytes"):
        backend.repository.publish(forged)


CHANGES: dict[str, Callable[[Backend], object]] = {
    "publish": lambda backend: backend.repository.publish(backend.registry.open("pump", 2)),
    "yank": lambda backend: backend.repository.yank("pump", 1),
    "allow": lambda backend: backend.repository.allow_rollback("pump", 1),
    "rotate": lambda backend: backend.repository.rotate("targets"),
    "rotate-root": lambda backend: backend.repository.rotate("root"),
    "resign": lambda backend: backend.repository.resign(),
}
WRITES = {"publish": 6, "yank": 3, "allow": 3, "rotate": 4, "rotate-root": 1, "resign": 4}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_crash_at_any_write_leaves_a_repository_that_verifies_and_the_change_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    for after in (False, True):
        for n in range(WRITES[change]):
            backend = _ready(tmp_path / f"{n}-{after}")
            root = backend.repository.root_bytes()
            before = listed(backend.repository, root)
            if change == "resign":
                backend.moved_s = 360 * DAY_S
            with monkeypatch.context() as patch:
                written = crash_at(patch, n, after=after)
                with pytest.raises(Crash):
                    CHANGES[change](backend)
            assert len(written) == n + after

            backend.moved_s = 0.0
            fresh = TufRepository(backend.repository.folder, KeyFolder(backend.home / "secrets" / "tuf"))
            seen = listed(fresh, root)
            backend.repository = fresh
            CHANGES[change](backend)
            assert seen in (before, listed(fresh, root))
            backend.close()


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_the_number_of_writes_tried_above_is_all_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    backend = _ready(tmp_path)
    backend.moved_s = 360 * DAY_S if change == "resign" else 0.0
    with monkeypatch.context() as patch:
        written = crash_at(patch, 1000, after=False)
        CHANGES[change](backend)
    backend.close()

    assert len(written) == WRITES[change]


def test_a_crash_while_the_repository_is_made_is_mended_by_making_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        repository = TufRepository(tmp_path / str(n), KeyFolder(tmp_path / f"keys-{n}"))
        with monkeypatch.context() as patch:
            crash_at(patch, n, after=False)
            with pytest.raises(Crash):
                repository.create()
        assert not repository.exists
        repository.create()
        repository.create()

        assert listed(repository, repository.root_bytes()) == {}


PUBLISH_FOR_EVER = """
import sys
from pathlib import Path
from tests.support.delivery import Backend

backend = Backend(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    backend.release(files={"m.onnx": b"x" * 1000})
"""


def test_kill_9_while_publishing_leaves_a_valid_repository(tmp_path: Path) -> None:
    backend = Backend(tmp_path / "server")
    root = backend.repository.root_bytes()
    backend.close()
    command = [sys.executable, "-c", PUBLISH_FOR_EVER, str(tmp_path / "server")]
    for pause_s in (0.05, 0.11, 0.23):
        root_folder = Path(__file__).parents[3]
        child = subprocess.Popen(command, cwd=root_folder, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(pause_s)
        child.send_signal(signal.SIGKILL)
        child.communicate()

        listed(TufRepository(tmp_path / "server/tuf", KeyFolder(tmp_path / "server/secrets/tuf")), root)


def _ready(folder: Path) -> Backend:
    """Return a backend with version 1 published and version 2 registered, not published."""
    backend = Backend(folder)
    backend.release(files={"a.onnx": b"a", "b.tflite": b"b"})
    publish = backend.repository.publish
    backend.repository.publish = lambda bundle: None  # type: ignore[method-assign]
    backend.release(files={"a.onnx": b"a2", "b.tflite": b"b2"})
    backend.repository.publish = publish  # type: ignore[method-assign]
    return backend
