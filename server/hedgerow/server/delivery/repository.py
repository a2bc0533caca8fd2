"""The TUF repository on disk: publishes bundles, takes them back, keeps signatures fresh, changes keys.

Every change writes new files first and replaces ``timestamp.json`` last: that one rename is the commit. A crash
before it leaves the old repository valid, with files that nothing names; the next change writes over them.
State is read from disk at the start of each change, so that memory never disagrees with what devices see.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from hedgerow.server.delivery import freshness, metadata, paths
from hedgerow.server.delivery.files import link_or_copy
from hedgerow.server.delivery.keys import ROLES, KeyFolder
from hedgerow.server.registry.service import OpenedBundle
from hedgerow.shared.errors import AuthError, StorageError
from hedgerow.shared.files import write_atomically

KEPT_VERSIONS = 8


class RepositoryState(msgspec.Struct, frozen=True):
    """What the repository says now, as devices would read it."""

    root: Root
    targets: Targets
    snapshot: Snapshot
    timestamp: Timestamp
    targets_bytes: bytes
    snapshot_bytes: bytes

    @property
    def expires(self) -> dict[str, datetime]:
        """Until when each role's signature holds."""
        return {role: getattr(self, role).expires for role in ROLES}


class TufRepository:
    """One TUF repository in ``folder`` (``metadata/`` and ``targets/``). Safe to use from any thread."""

    def __init__(self, folder: Path, keys: KeyFolder, now: Callable[[], datetime] | None = None) -> None:
        self.folder = folder
        self._keys = keys
        self._now = now or (lambda: datetime.now(UTC))
        self._lock = threading.Lock()

    @property
    def exists(self) -> bool:
        """Tell whether the repository was made; its first timestamp is what finishes that."""
        return (self._metadata / "timestamp.json").is_file()

    def create(self) -> None:
        """Make keys and an empty repository, once; a crash on the way is mended by calling it again."""
        with self._lock:
            if self.exists:
                return
            self._metadata.mkdir(parents=True, exist_ok=True)
            (self.folder / "targets").mkdir(exist_ok=True)
            root = metadata.first_root(self._now())
            for role in ROLES:
                root.add_key(self._keys.create(role).public_key, role)
            self._write("1.root.json", self._signed(root, "root", root.roles["root"].keyids))
            empty = Targets(expires=freshness.expiry("targets", self._now()))
            self._commit(root, empty, Snapshot(), Timestamp())

    def root_bytes(self) -> bytes:
        """Return the newest root: what a device that joins now starts its trust from."""
        return _read(self._metadata / f"{self._latest_root()[0]}.root.json")

    def state(self) -> RepositoryState:
        """Return what the repository says, verified. Raises StorageError if it is missing or damaged."""
        try:
            return self._state()
        except RepositoryError as error:
            raise StorageError(f"{self.folder}: the TUF repository is damaged: {error}") from error

    def publish(self, bundle: OpenedBundle) -> None:
        """Sign a registered bundle for devices; publishing it again changes nothing.

        Raises ContentError if its names are published with other bytes, StorageError, AuthError without keys.
        """
        prefix = paths.bundle_prefix(bundle.manifest.model, bundle.manifest.version)
        custom = {"version": bundle.manifest.version, "manifest_sha256": bundle.manifest_sha256}
        files = {paths.MANIFEST: bundle.manifest_path, **bundle.artefacts}
        facts = {paths.MANIFEST: (len(bundle.manifest_bytes), bundle.manifest_sha256)}
        facts |= {
            artefact.file: (artefact.size_bytes, artefact.sha256) for artefact in bundle.manifest.artefacts
        }
        entries = [
            metadata.TargetEntry(prefix + name, size, digest, custom)
            for name, (size, digest) in facts.items()
        ]
        with self._lock:
            state = self.state()
            targets = metadata.with_targets(state.targets, entries, self._now())
            for entry in entries:
                name = entry.name.removeprefix(prefix)
                link_or_copy(files[name], self.folder / "targets" / paths.disk_path(entry.name, entry.sha256))
            if targets is not None:
                self._commit(state.root, targets, state.snapshot, state.timestamp)

    def is_published(self, model: str, version: int) -> bool:
        """Tell whether the bundle is signed now."""
        return paths.bundle_prefix(model, version) + paths.MANIFEST in self.state().targets.targets

    def allow_rollback(self, model: str, version: int) -> None:
        """Sign that devices may go back to this bundle from a newer one. Raises ContentError if not published."""
        with self._lock:
            state = self.state()
            targets = metadata.with_rollback_allowed(state.targets, model, version, self._now())
            if targets is not None:
                self._commit(state.root, targets, state.snapshot, state.timestamp)

    def yank(self, model: str, version: int) -> None:
        """Take a bundle back: no longer signed, then its files go. Devices that serve it go on."""
        with self._lock:
            state = self.state()
            targets = metadata.without_bundle(state.targets, model, version, self._now())
            if targets is not None:
                self._commit(state.root, targets, state.snapshot, state.timestamp)
            folder = self.folder / "targets" / paths.bundle_prefix(model, version)
            if folder.is_dir():
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()

    def resign(self) -> frozenset[str]:
        """Sign again what falls due and return those roles. Without the root key, the root is left as it is."""
        with self._lock:
            state = self.state()
            due = set(freshness.resign_due(state.expires, self._now()))
            root = state.root
            if "root" in due and self._keys.signers("root", root.roles["root"].keyids):
                root = metadata.renewed(root, "root", self._now())
                self._write(
                    f"{root.version}.root.json", self._signed(root, "root", root.roles["root"].keyids)
                )
            else:
                due.discard("root")
            if "targets" in due:
                self._commit(
                    root,
                    metadata.renewed(state.targets, "targets", self._now()),
                    state.snapshot,
                    state.timestamp,
                )
            elif "snapshot" in due:
                self._commit_snapshot(
                    root, state.targets.version, state.targets_bytes, state.snapshot, state.timestamp
                )
            elif "timestamp" in due:
                self._commit_timestamp(root, state.snapshot.version, state.snapshot_bytes, state.timestamp)
            return frozenset(due)

    def rotate(self, role: str) -> None:
        """Replace the key of ``role`` by a new one and revoke the old one. Needs the root key.

        First everything is signed by the old and the new key, then the new root is written: a crash between the
        two leaves a repository that verifies by the old root. Raises AuthError if the root key is not here.
        """
        with self._lock:
            state = self.state()
            before = state.root.roles
            if role not in ROLES or not self._keys.signers("root", before["root"].keyids):
                raise AuthError(f"to change the {role} key, put the root key back into {self._keys.folder}")
            root = metadata.renewed(state.root, "root", self._now())
            root.add_key(self._keys.create(role).public_key, role)
            if role != "root":
                fresh = metadata.renewed(state.targets, "targets", self._now())
                self._commit(root, fresh, state.snapshot, state.timestamp)
            for key_id in before[role].keyids:
                root.revoke_key(key_id, role)
            # A root is trusted by the keys of the one before it as well as by its own.
            signers = [*before["root"].keyids, *root.roles["root"].keyids]
            self._write(f"{root.version}.root.json", self._signed(root, "root", dict.fromkeys(signers)))
            for key_id in before[role].keyids:
                self._keys.forget(role, key_id)

    @property
    def _metadata(self) -> Path:
        return self.folder / "metadata"

    def _state(self) -> RepositoryState:
        root = self._latest_root()[1]
        timestamp = metadata.verified(_read(self._metadata / "timestamp.json"), "timestamp", root).signed
        snapshot_bytes = _read(self._metadata / f"{timestamp.snapshot_meta.version}.snapshot.json")
        timestamp.snapshot_meta.verify_length_and_hashes(snapshot_bytes)
        snapshot = metadata.verified(snapshot_bytes, "snapshot", root).signed
        described = snapshot.meta["targets.json"]
        targets_bytes = _read(self._metadata / f"{described.version}.targets.json")
        described.verify_length_and_hashes(targets_bytes)
        targets = metadata.verified(targets_bytes, "targets", root).signed
        return RepositoryState(root, targets, snapshot, timestamp, targets_bytes, snapshot_bytes)

    def _latest_root(self) -> tuple[int, Root]:
        version = 1
        while (self._metadata / f"{version + 1}.root.json").is_file():
            version += 1
        data = _read(self._metadata / f"{version}.root.json")
        parsed: Metadata[Root] = Metadata.from_bytes(data)
        return version, metadata.verified(data, "root", parsed.signed).signed

    def _commit(self, root: Root, targets: Targets, snapshot: Snapshot, timestamp: Timestamp) -> None:
        data = self._signed(targets, "targets", root.roles["targets"].keyids)
        self._write(f"{targets.version}.targets.json", data)
        self._commit_snapshot(root, targets.version, data, snapshot, timestamp)
        self._prune(targets.version, snapshot.version + 1)

    def _commit_snapshot(
        self, root: Root, targets_version: int, targets_bytes: bytes, snapshot: Snapshot, timestamp: Timestamp
    ) -> None:
        fresh = metadata.next_snapshot(snapshot, targets_version, targets_bytes, self._now())
        data = self._signed(fresh, "snapshot", root.roles["snapshot"].keyids)
        self._write(f"{fresh.version}.snapshot.json", data)
        self._commit_timestamp(root, fresh.version, data, timestamp)

    def _commit_timestamp(
        self, root: Root, version: int, snapshot_bytes: bytes, timestamp: Timestamp
    ) -> None:
        fresh = metadata.next_timestamp(timestamp, version, snapshot_bytes, self._now())
        self._write("timestamp.json", self._signed(fresh, "timestamp", root.roles["timestamp"].keyids))

    def _signed(self, signed: Any, role: str, key_ids: Iterable[str]) -> bytes:
        signers = self._keys.signers(role, key_ids)
        if not signers:
            raise AuthError(f"the {role} key is not in {self._keys.folder}; put it back to sign")
        wrapped = Metadata(signed)
        for signer in signers:
            wrapped.sign(signer, append=True)
        return wrapped.to_bytes()

    def _prune(self, targets_version: int, snapshot_version: int) -> None:
        # Devices in the middle of a refresh still read the files that the last timestamps named.
        for role, newest in (("targets", targets_version), ("snapshot", snapshot_version)):
            for path in self._metadata.glob(f"*.{role}.json"):
                number = path.name.partition(".")[0]
                if number.isdigit() and int(number) < newest - KEPT_VERSIONS:
                    path.unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        write_atomically(self._metadata / name, data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror}") from error
