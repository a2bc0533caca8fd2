"""Signed metadata byte by byte, from the server and from the device's own disk: refused, or still what was signed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.delivery import Backend

from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.edge_agent.updater.trust import SignedFile, TrustedBundles
from hedgerow.shared.messages import BundleTarget

STRIDE: Final = 11
"""Every so many bytes one is changed; prime to the lines of these files, so that each kind of place is met."""
REFUSED: Final = {"untrusted", "expired", "unreachable"}
Spoil = Callable[[str, bytes], bytes]


class Disk:
    """Serves a repository's metadata from its folder, each file through ``spoil``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.spoil: Spoil = lambda _name, data: data
        self.status = 200
        self._body = b""

    @contextmanager
    def get(self, url: str, _headers: dict[str, str] | None = None) -> Iterator[Any]:
        name = url.rpartition("/")[2]
        path = self._folder / name
        self.status = 200 if path.is_file() else 404
        self._body = self.spoil(name, path.read_bytes()) if path.is_file() else b""
        yield self

    def chunks(self) -> Iterator[bytes]:
        yield self._body


class Rig:
    """One repository with a published bundle, and a device that may look at it anew each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        backend = Backend(folder / "server")
        self.target: BundleTarget = backend.release()
        self.published = backend.repository.folder / "metadata"
        self.disk = Disk(self.published)
        self.root = folder / "root.json"
        self.root.write_bytes(backend.repository.root_bytes())
        backend.close()
        self.cache = folder / "cache"
        self.true = self.look()

    def look(self) -> SignedFile:
        trusted = TrustedBundles(self.disk, "https://h", root=self.root, metadata=self.cache)  # type: ignore[arg-type]
        trusted.refresh()
        return trusted.file(self.target.model, self.target.version, "manifest.json")

    def forget(self) -> None:
        shutil.rmtree(self.cache)

    def served(self, role: str) -> bytes:
        return max(self.published.glob(f"*{role}.json")).read_bytes()

    def refused_or_true(self, where: str) -> bool:
        """Return whether the device refused; what it takes for signed must be what was signed."""
        try:
            assert self.look() == self.true, where
        except UpdateError as error:
            assert error.reason in REFUSED, (where, error)
            return True
        return False


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("signed"))


@pytest.fixture(autouse=True)
def whole(rig: Rig) -> Iterator[None]:
    yield
    rig.disk.spoil = lambda _name, data: data
    shutil.rmtree(rig.cache, ignore_errors=True)
    assert rig.look() == rig.true, "the rig is as it was"


def changing(role: str, place: int, flip: int) -> Spoil:
    def spoil(name: str, data: bytes) -> bytes:
        if role not in name:
            return data
        at = place % len(data)
        return data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]

    return spoil


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_a_server_sends_is_refused_or_is_what_was_signed_whichever_byte_it_changed(
    rig: Rig, role: str
) -> None:
    refusals, places = 0, range(0, len(rig.served(role)), STRIDE)
    for place in places:
        rig.forget()
        rig.disk.spoil = changing(role, place, 1 << place % 8)
        refusals += rig.refused_or_true(f"{role} {place}")

    # Below the timestamp every byte counts, for its hash is signed above it.
    assert refusals == len(places) if role != "timestamp" else refusals > 0.9 * len(places)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_a_server_cuts_short_or_lengthens_is_refused(rig: Rig, role: str) -> None:
    whole = rig.served(role)
    for changed in (
        b"",
        whole[:1],
        whole[: len(whole) // 2],
        whole[:-2],
        whole + whole,
        b"\xff" * len(whole),
    ):
        rig.forget()
        rig.disk.spoil = lambda name, data, new=changed: new if role in name else data  # type: ignore[misc]
        assert rig.refused_or_true(role)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_metadata_without_its_signatures_or_with_anothers_is_refused(rig: Rig, role: str) -> None:
    def unsigned(data: bytes) -> bytes:
        return json.dumps({**json.loads(data), "signatures": []}).encode()

    def of_another(data: bytes) -> bytes:
        found = json.loads(data)
        for signature in found["signatures"]:
            signature["sig"] = "00" * 64
        return json.dumps(found).encode()

    for change in (unsigned, of_another):
        rig.forget()
        rig.disk.spoil = lambda name, data, act=change: act(data) if role in name else data  # type: ignore[misc]
        assert rig.refused_or_true(role)


@pytest.mark.parametrize(
    ("field", "value"), [("expires", "2099-01-01T00:00:00Z"), ("version", 999), ("spec_version", "9.9.9")]
)
def test_a_field_that_is_changed_without_signing_again_is_refused(
    rig: Rig, field: str, value: object
) -> None:
    def change(name: str, data: bytes) -> bytes:
        if "timestamp" not in name:
            return data
        found = json.loads(data)
        found["signed"][field] = value
        return json.dumps(found).encode()

    rig.forget()
    rig.disk.spoil = change
    assert rig.refused_or_true(field)


def cached(rig: Rig) -> list[Path]:
    return sorted(path for path in rig.cache.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_cache_that_the_disk_changed_is_fetched_anew_or_refused_and_never_believed(rig: Rig) -> None:
    """The device's own copy is verified as strictly as what comes from the server."""
    rig.look()
    names = [path.relative_to(rig.cache) for path in cached(rig)]
    assert len(names) >= 4, "root, timestamp, snapshot and targets are kept"
    for name in names:
        for place in range(0, 1200, 157):
            rig.forget()
            rig.look()
            path = rig.cache / name
            path.write_bytes(changing("", place, 1 << place % 8)("", path.read_bytes()))
            rig.refused_or_true(f"{name} {place}")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"signed": 1}', b"{" * 5000])
def test_a_cache_of_garbage_does_no_more_than_cost_a_fetch(rig: Rig, content: bytes) -> None:
    rig.look()
    for name in [path.relative_to(rig.cache) for path in cached(rig)]:
        rig.forget()
        rig.look()
        (rig.cache / name).write_bytes(content)
        rig.refused_or_true(str(name))


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", b'{"signed": {}, "signatures": []}'])
def test_a_root_of_trust_that_is_none_trusts_nothing(rig: Rig, tmp_path: Path, content: bytes) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(content)
    trusted = TrustedBundles(rig.disk, "https://h", root=root, metadata=tmp_path / "cache")  # type: ignore[arg-type]

    with pytest.raises(UpdateError) as error:
        trusted.refresh()

    assert error.value.reason == "untrusted"


def test_a_root_of_another_fleet_trusts_nothing_of_this_one(rig: Rig, tmp_path: Path) -> None:
    other = Backend(tmp_path / "other")
    root = tmp_path / "root.json"
    root.write_bytes(other.repository.root_bytes())
    other.close()
    trusted = TrustedBundles(rig.disk, "https://h", root=root, metadata=tmp_path / "cache")  # type: ignore[arg-type]

    with pytest.raises(UpdateError) as error:
        trusted.refresh()

    assert error.value.reason == "untrusted"


@pytest.mark.parametrize(
    ("model", "version", "name"),
    [("pump", 2, "manifest.json"), ("fan", 1, "manifest.json"), ("pump", 1, "other.onnx"), ("pump", 1, "")],
)
def test_what_was_never_signed_is_not_listed(rig: Rig, model: str, version: int, name: str) -> None:
    trusted = TrustedBundles(rig.disk, "https://h", root=rig.root, metadata=rig.cache)  # type: ignore[arg-type]
    trusted.refresh()

    with pytest.raises(UpdateError, match="not signed") as error:
        trusted.file(model, version, name)

    assert error.value.reason == "not-listed"
