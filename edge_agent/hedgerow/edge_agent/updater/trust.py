"""What the fleet's signed metadata says about a bundle's files: python-tuf's client, over our HTTPS, in our terms.

Trust starts from the root that the device got when it joined, at every start, and follows root versions from there.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.ngclient import FetcherInterface, Updater

from hedgerow.edge_agent.updater.download import Wanted
from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.edge_agent.updater.https import Https
from hedgerow.edge_agent.updater.result import Reason
from hedgerow.shared.errors import TransportError

MAX_ROOT_BYTES = 512 * 1024
MAX_METADATA_BYTES = 8 * 1024 * 1024
METADATA_DEADLINE_S = 60.0


class SignedFile(msgspec.Struct, frozen=True):
    """One file of a bundle as signed. ``rollback_ok``: the signer allows going back to it from a newer version."""

    name: str
    wanted: Wanted
    manifest_sha256: str
    rollback_ok: bool


class MtlsFetcher(FetcherInterface):
    """Fetches TUF metadata over the device's connection; tuf bounds each file's length as it reads."""

    def __init__(self, https: Https, tries: int = 3) -> None:
        self._https = https
        self._tries = tries

    def _fetch(self, url: str) -> Iterator[bytes]:
        # Metadata is a few kilobytes: a try that broke off starts anew, before tuf has seen any of it.
        for attempt in range(self._tries):
            try:
                return iter(self._read(url))
            except TransportError as error:
                if attempt + 1 == self._tries:
                    raise DownloadError(str(error)) from error
        raise DownloadError(f"{url}: no tries left")

    def _read(self, url: str) -> list[bytes]:
        with self._https.get(url) as answer:
            if answer.status >= 500:
                raise TransportError(f"{url}: the server answers {answer.status}")
            if answer.status != 200:
                raise DownloadHTTPError(f"{url}: the server answers {answer.status}", answer.status)
            return list(_bounded(answer.chunks()))


class TrustedBundles:
    """The trusted view of one repository: refresh once, then ask for files."""

    def __init__(self, https: Https, base_url: str, *, root: Path, metadata: Path) -> None:
        self._targets_url = f"{base_url}/v1/device/tuf/targets"
        try:
            with root.open("rb") as file:
                bootstrap = file.read(MAX_ROOT_BYTES)
            metadata.mkdir(parents=True, exist_ok=True)
            for leftover in metadata.glob("tmp*"):  # of a tuf that was killed while it wrote
                leftover.unlink()
        except OSError as error:
            raise UpdateError(
                "usage", f"{root}: no trust to start from; join the fleet first: {error}"
            ) from error
        self._https, self._base_url = https, base_url
        self._bootstrap, self._metadata = bootstrap, metadata
        self._updater: Updater | None = None

    def refresh(self) -> None:
        """Fetch and verify the metadata.

        A refusal is looked at once more from the root on: keys may have changed between two of the files.
        Raises UpdateError: ``expired``, ``untrusted``, ``unreachable``, ``disk-full`` or ``storage``.
        """
        try:
            self._refresh()
        except UpdateError as error:
            if error.reason != "untrusted":
                raise
            self._refresh()

    def _refresh(self) -> None:
        try:
            self._updater = Updater(
                str(self._metadata),
                f"{self._base_url}/v1/device/tuf/metadata",
                fetcher=MtlsFetcher(self._https),
                bootstrap=self._bootstrap,
            )
            self._updater.refresh()
        except (RepositoryError, DownloadError) as error:
            raise UpdateError(refusal(error), f"{type(error).__name__}: {error}") from error
        except OSError as error:
            raise _storage(error) from error

    def file(self, model: str, version: int, name: str) -> SignedFile:
        """Return what is signed about one file of a bundle. Raises UpdateError ``not-listed``, ``untrusted``."""
        path = f"bundles/{model}/{version}/{name}"
        if self._updater is None:
            raise UpdateError("untrusted", "nothing is trusted before a refresh")
        try:
            info = self._updater.get_targetinfo(path)
        except (RepositoryError, DownloadError) as error:
            raise UpdateError(refusal(error), f"{path}: {type(error).__name__}: {error}") from error
        except OSError as error:
            raise _storage(error) from error
        if info is None:
            raise UpdateError("not-listed", f"{path} is not signed (never published, or yanked)")
        sha256 = info.hashes.get("sha256")
        if sha256 is None:
            raise UpdateError("untrusted", f"{path} is signed without a SHA-256")
        custom = info.unrecognized_fields.get("custom")
        signed = custom if isinstance(custom, dict) else {}
        url = f"{self._targets_url}/bundles/{model}/{version}/{sha256}.{name}"
        return SignedFile(
            name=name,
            wanted=Wanted(url, info.length, sha256),
            manifest_sha256=str(signed.get("manifest_sha256", "")),
            rollback_ok=signed.get("rollback_ok") is True,
        )


def refusal(error: RepositoryError | DownloadError) -> Reason:
    """Return whose fault an error of tuf's is: the content's (never retried as it is) or the way's."""
    if isinstance(error, ExpiredMetadataError):
        return "expired"
    if isinstance(error, RepositoryError | DownloadLengthMismatchError):
        return "untrusted"
    if isinstance(error, DownloadHTTPError) and error.status_code == 404:
        return "untrusted"  # the metadata names a file that the server does not have
    return "unreachable"


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    # tuf checks each role's own bound afterwards; these keep a body without end, or a trickle, from holding us.
    total, started = 0, time.monotonic()
    for chunk in chunks:
        total += len(chunk)
        yield chunk
        if total > MAX_METADATA_BYTES:
            return
        if time.monotonic() - started > METADATA_DEADLINE_S:
            raise TransportError(f"metadata not read after {METADATA_DEADLINE_S:g} s")


def _storage(error: OSError) -> UpdateError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return UpdateError("disk-full" if full else "storage", f"cannot keep metadata: {error.strerror or error}")
