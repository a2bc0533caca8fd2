"""One update, from a desired bundle to a complete, verified folder. Policy, trust and disk meet here and only here."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hedgerow.edge_agent.clock import read_last_known_us
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.slots import Slots, may_install
from hedgerow.edge_agent.slots.record import InstalledFile
from hedgerow.edge_agent.updater.clock import is_behind
from hedgerow.edge_agent.updater.download import Downloader, Fetched
from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.edge_agent.updater.https import Https
from hedgerow.edge_agent.updater.result import UpdateResult
from hedgerow.edge_agent.updater.trust import SignedFile, TrustedBundles
from hedgerow.shared import limits
from hedgerow.shared.bundle import Manifest, decode_manifest, sha256_hex
from hedgerow.shared.errors import ContentError, IntegrityError, StorageError
from hedgerow.shared.messages import BundleTarget

MANIFEST = "manifest.json"
MAX_ARTEFACTS = 64
# Left free beyond the bundle, so that samples and the outbox go on.
RESERVE_BYTES = 16 * limits.MIB


def stage(
    home: AgentHome, base_url: str, target: BundleTarget, runtimes: frozenset[str] = frozenset()
) -> UpdateResult:
    """Fetch and verify ``target`` and return where it lies complete; artefacts of ``runtimes`` only, if any are named.

    Raises UpdateError with the reason, StorageError, IntegrityError.
    """
    if not _plain_hash(target.manifest_sha256):
        raise UpdateError("usage", "the desired bundle names no manifest hash")
    slots = Slots(home.slots, target.model)
    _check_clock(home.clock)
    verdict = _check_version(slots, target)
    if verdict == "allowed" and (here := slots.find(target.manifest_sha256)) is not None:
        return _result("already-here", target, here, Fetched(0, 0))
    with _alone(home):
        https = Https(home.identity_files())
        try:
            trusted = TrustedBundles(https, base_url, root=home.tuf_root, metadata=home.tuf_metadata)
            trusted.refresh()
            signed = trusted.file(target.model, target.version, MANIFEST)
            if verdict == "needs-signed-leave" and not signed.rollback_ok:
                raise UpdateError("rollback-refused", f"version {target.version}: going back is not signed")
            return _fill(slots, target, trusted, signed, Downloader(https), runtimes=runtimes)
        finally:
            https.close()


@contextmanager
def _alone(home: AgentHome) -> Iterator[None]:
    # An agent that was killed may have left an updater behind; tuf's cache and the slots bear one at a time.
    try:
        home.tuf_metadata.mkdir(parents=True, exist_ok=True)
        lock = (home.tuf_metadata.parent / "updater.lock").open("wb")
    except OSError as error:
        raise StorageError(f"{home.tuf_metadata}: cannot write: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UpdateError("busy", "another update of this device is running") from error
        yield


def _fill(
    slots: Slots,
    target: BundleTarget,
    trusted: TrustedBundles,
    signed: SignedFile,
    downloader: Downloader,
    *,
    runtimes: frozenset[str],
) -> UpdateResult:
    if signed.wanted.sha256 != target.manifest_sha256 or signed.wanted.length > limits.MAX_MANIFEST_BYTES:
        raise UpdateError("mismatch", "the signed manifest is not the desired one")
    folder = slots.prepare(target.manifest_sha256)
    try:
        cost = [_fetch(downloader, signed, folder)]
        manifest = _read_manifest(folder / MANIFEST, target)
        wanted = [a for a in manifest.artefacts if not runtimes or a.runtime in runtimes]
        if not wanted:
            raise UpdateError("mismatch", f"no artefact for {', '.join(sorted(runtimes))} in the bundle")
        files = [trusted.file(target.model, target.version, artefact.file) for artefact in wanted]
        for artefact, file in zip(wanted, files, strict=True):
            if (file.wanted.sha256, file.wanted.length) != (artefact.sha256, artefact.size_bytes):
                raise UpdateError("mismatch", f"{artefact.file}: signed metadata and manifest disagree")
        _check_space(folder, files)
        cost += [_fetch(downloader, file, folder) for file in files]
        sealed = {f.name: InstalledFile(f.wanted.length, f.wanted.sha256) for f in [signed, *files]}
        slots.seal(target.version, target.manifest_sha256, sealed)
    except IntegrityError:
        slots.discard_incoming()  # the disk changed what was verified: start over next time
        raise
    except UpdateError as error:
        if error.reason in ("disk-full", "mismatch"):
            slots.discard_incoming()
        raise
    total = Fetched(sum(c.bytes_down for c in cost), sum(c.bytes_resumed for c in cost))
    return _result("staged", target, folder, total)


def _fetch(downloader: Downloader, file: SignedFile, folder: Path) -> Fetched:
    path = folder / file.name
    if path.is_file() and path.stat().st_size == file.wanted.length:
        # Complete from an earlier try; sealing reads every file back, so it is not believed here.
        return Fetched(0, file.wanted.length)
    return downloader.fetch(file.wanted, path)


def _read_manifest(path: Path, target: BundleTarget) -> Manifest:
    try:
        data = path.read_bytes()
        if sha256_hex(data) != target.manifest_sha256:
            raise UpdateError("mismatch", "the manifest on disk is not the desired one")
        manifest = decode_manifest(data)
    except ContentError as error:
        raise UpdateError("mismatch", str(error)) from error
    if (manifest.model, manifest.version) != (target.model, target.version):
        raise UpdateError(
            "mismatch",
            f"the manifest is of {manifest.model} {manifest.version}, not of {target.model} {target.version}",
        )
    names = [artefact.file for artefact in manifest.artefacts]
    if len(names) > MAX_ARTEFACTS or len(set(names)) != len(names) or MANIFEST in names:
        raise UpdateError("mismatch", f"{len(names)} artefacts, too many or not all with names of their own")
    return manifest


def _check_clock(path: Path) -> None:
    if is_behind(time.time_ns() // 1000, read_last_known_us(path)):
        raise UpdateError(
            "clock-behind", "the clock stands before the last known time; waiting for time synchronisation"
        )


def _check_version(slots: Slots, target: BundleTarget) -> str:
    previous = slots.previous()
    confirmed = slots.confirmed()
    verdict = may_install(target, confirmed, None if previous is None else previous.manifest_sha256)
    if verdict == "refused":
        served = 0 if confirmed is None else confirmed.version
        raise UpdateError(
            "rollback-refused", f"version {target.version} is not newer than {served}, which served here"
        )
    return verdict


def _check_space(folder: Path, files: list[SignedFile]) -> None:
    needed = sum(file.wanted.length for file in files)
    if needed > limits.MAX_ARTEFACT_BYTES * 2:
        raise UpdateError("mismatch", f"a bundle of {needed} bytes; at most {limits.MAX_ARTEFACT_BYTES * 2}")
    have = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    free = shutil.disk_usage(folder).free
    if free + have < needed + RESERVE_BYTES:
        raise UpdateError("disk-full", f"{folder}: {free} bytes free, {needed - have + RESERVE_BYTES} needed")


def _plain_hash(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


def _result(reason: str, target: BundleTarget, folder: Path, cost: Fetched) -> UpdateResult:
    return UpdateResult(
        reason="already-here" if reason == "already-here" else "staged",
        model=target.model,
        version=target.version,
        manifest_sha256=target.manifest_sha256,
        folder=str(folder),
        bytes_down=cost.bytes_down,
        bytes_resumed=cost.bytes_resumed,
    )
