"""Filling the store from files: telemetry from CSV through the live path's rules, tensors from NumPy archives."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.telemetry.csv_backfill import read_rows
from hedgerow.edge_agent.telemetry.pipeline import as_sample, feature_set
from hedgerow.edge_agent.telemetry.stream import Fed, RowStream
from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.specs import Sample, TensorSpec

_GROUP: Final = 500
_MAX_ARCHIVE_BYTES: Final = 512 * limits.MIB
_MAX_LABEL: Final = 2**31 - 1
# What zipfile and NumPy raise on archives that are damaged, encrypted, packed in another way, or say sizes that are not true.
_UNREADABLE: Final = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class Ingested(msgspec.Struct, frozen=True):
    """What became of files: rows read, samples new in the store, refusals and gaps by reason."""

    rows: int
    samples: int
    counts: dict[str, int]


def ingest_csv(
    profile: DeviceProfile, files: Sequence[Path], store: SampleStore, *, first_rows: int | None = None
) -> Ingested:
    """Store the windows of recordings; each file is a stream of its own, so that no window spans two.

    ``first_rows`` stops each file early. Ingesting a file again adds nothing. Raises ConfigError for a file that the
    profile does not fit, StorageError when the disk is full.
    """
    store.declare(profile.window_spec)
    counts: Counter[str] = Counter()
    rows = added = 0
    for path in files:
        read, new = _ingest_file(profile, path, store, counts, first_rows)
        rows, added = rows + read, added + new
    return Ingested(rows, added, dict(counts))


def _ingest_file(
    profile: DeviceProfile, path: Path, store: SampleStore, counts: Counter[str], first_rows: int | None
) -> tuple[int, int]:
    stream = RowStream(profile)
    samples: list[Sample] = []
    rows = added = 0

    def gather(fed: Fed) -> None:
        counts.update(refusal.reason for refusal in fed.refusals)
        samples.extend(as_sample(window, profile.window.name, feature_set(profile)) for window in fed.windows)

    for row in read_rows(path, profile, counts):
        gather(stream.feed((row,)))
        rows += 1
        if len(samples) >= _GROUP:
            added += store.add(samples)
            samples.clear()
        if first_rows is not None and rows >= first_rows:
            break
    gather(stream.finish())
    counts.update(stream.counts)
    return rows, added + (store.add(samples) if samples else 0)


def ingest_arrays(path: Path, spec: TensorSpec, store: SampleStore, *, features: str = "raw") -> Ingested:
    """Store the samples of a NumPy archive: ``x`` ``(n, *spec.shape)`` of the spec's dtype, and labels ``y`` if it has.

    Samples are dated by their position in the archive. Raises ConfigError if the file cannot be read, ContentError if
    its arrays are not what the spec says.
    """
    x, y = _load(path)
    spec.check(x)
    if y is not None and (y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer)):
        raise ContentError(f"{path}: y must hold {len(x)} integer labels, got {y.dtype} {y.shape}")
    if y is not None and y.size and not 0 <= int(y.min()) <= int(y.max()) <= _MAX_LABEL:
        raise ContentError(f"{path}: y holds {y.min()} to {y.max()}; a label is from 0 to {_MAX_LABEL}")
    store.declare(spec)
    added = 0
    for start in range(0, len(x), _GROUP):
        group = range(start, min(start + _GROUP, len(x)))
        added += store.add(
            [Sample(spec.name, x[n], n, n, features, label=None if y is None else int(y[n])) for n in group]
        )
    return Ingested(len(x), added, {})


def _load(
    path: Path,
) -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None,
]:
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > _MAX_ARCHIVE_BYTES:
            raise ConfigError(f"{path}: unpacks to {total} bytes; at most {_MAX_ARCHIVE_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            if "x" not in arrays:
                raise ConfigError(f"{path}: has no array 'x'; there are {', '.join(arrays) or 'none'}")
            found = {name: arrays[name] for name in ("x", "y") if name in arrays}
        for name, array in found.items():
            # NumPy gives back as bytes what does not begin as an array
            if not isinstance(array, np.ndarray):
                raise ConfigError(f"{path}: {name!r} is not an array")
        return found["x"], found.get("y")
    except _UNREADABLE as error:
        raise ConfigError(f"{path}: cannot be read as a NumPy archive: {error}") from error
