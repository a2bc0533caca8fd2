"""The sample store: windows, images and other tensors by spec in one SQLite file, one writer, many readers.

``add`` is one transaction (its caller forms the group); the file stays within ``max_bytes`` and samples within
``max_age_s``, the oldest going first. A sample is stored once: one with the same spec, times and bytes is skipped.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.samples import schema
from hedgerow.edge_agent.samples.schema import DamagedError
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.specs import DType, Kind, Sample, TensorSpec

log = logging.getLogger(__name__)
_KINDS: Final[dict[tuple[str, int], Kind]] = {
    ("float32", 2): "window",
    ("uint8", 3): "image",
    ("float32", 1): "scores",
}
_DIGEST_BYTES: Final = 8


class StoredBatch(msgspec.Struct, frozen=True):
    """Samples in the order of their ids: ``ids``, ``start_us``, ``end_us`` int64 ``(n,)``, ``valid`` float32 ``(n,)``,
    ``arrays`` ``(n, *shape)`` of the spec's dtype, and a label or None each.
    """

    ids: npt.NDArray[np.int64]
    arrays: npt.NDArray[np.generic]
    start_us: npt.NDArray[np.int64]
    end_us: npt.NDArray[np.int64]
    valid: npt.NDArray[np.float32]
    labels: list[int | None]


class SampleStore:
    """Safe to use from any thread; ``read_only`` opens an existing store beside its writer, in any process.

    ``moved_aside`` is where a damaged file went at opening (None if it was sound); a fresh one was started.
    Raises StorageError if the file cannot be opened, or was written by a newer version.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, max_age_s: float | None, read_only: bool = False
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.moved_aside: Path | None = None
        self._max_bytes = max_bytes
        self._max_age_us = None if max_age_s is None else round(max_age_s * 1e6)
        self._lock = threading.Lock()
        self._connection = schema.open_reader(path) if read_only else self._open_or_start_anew()
        self._specs: dict[str, tuple[int, TensorSpec]] = {}
        self._on_reset: list[Callable[[sqlite3.Connection], None]] = []
        with self._guarded():
            self._load_specs()
            if not read_only:
                schema.mark_clean(self._connection, False)

    def declare(self, spec: TensorSpec) -> None:
        """Make ``spec`` known. Raises ContentError if the store holds another one by that name."""
        self._writable()
        with self._guarded():
            self._declared(spec)

    def specs(self) -> dict[str, TensorSpec]:
        """Return the known specs by name."""
        with self._guarded():
            self._load_specs()
            return {name: spec for name, (_, spec) in self._specs.items()}

    def add(
        self, samples: Sequence[Sample], *, also: Callable[[sqlite3.Connection], None] | None = None
    ) -> int:
        """Store samples in one transaction and return how many were new; then drop the oldest beyond the bounds.

        A spec not declared is taken from its first sample. ``also`` runs in the same transaction.
        Raises ContentError for an array that contradicts its spec, StorageError when the disk is full or failing; in
        either case nothing of the call is stored, and what was stored before stays.
        """
        self._writable()
        with self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                added = sum(self._insert(sample) for sample in samples)
                if also is not None:
                    also(self._connection)
                touched = {sample.spec for sample in samples}
                self._evict_old(touched)
                self._evict_large()
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        return added

    def count(self, spec: str) -> int:
        """Return how many samples of ``spec`` there are; 0 for an unknown one."""
        return self._number("SELECT count(*) FROM samples WHERE spec=?", spec)

    def last_id(self, spec: str) -> int:
        """Return the id of the newest sample of ``spec``; 0 where there is none."""
        return self._number("SELECT coalesce(max(id), 0) FROM samples WHERE spec=?", spec)

    def read(
        self, spec: str, *, after_id: int = 0, up_to_id: int | None = None, limit: int | None = None
    ) -> StoredBatch:
        """Return samples of ``spec`` with ids in ``(after_id, up_to_id]``, oldest first, at most ``limit``.

        Raises ContentError for an unknown spec, StorageError if the file is damaged.
        """
        with self._guarded():
            number, tensor = self._known(spec)
            rows = self._connection.execute(
                "SELECT id, start_us, end_us, valid, label, data FROM samples "
                "WHERE spec=? AND id>? AND id<=? ORDER BY id LIMIT ?",
                (
                    number,
                    after_id,
                    2**63 - 1 if up_to_id is None else up_to_id,
                    -1 if limit is None else limit,
                ),
            ).fetchall()
        return _batch(rows, tensor, self.path)

    def used_bytes(self) -> int:
        """Return the bytes of the file that are in use."""
        with self._guarded():
            return self._used()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection for a part that keeps its own tables in the same file; holds the store's lock."""
        with self._guarded():
            yield self._connection

    def on_reset(self, prepare: Callable[[sqlite3.Connection], None]) -> None:
        """Run ``prepare`` now, and again whenever a damaged file is replaced by a fresh one."""
        with self._guarded():
            prepare(self._connection)
        self._on_reset.append(prepare)

    def start_anew(self) -> Path:
        """Move the file aside, because it turned out damaged, start a fresh one and return where the old one is."""
        self._writable()
        with self._lock:
            self._connection.close()
            moved = schema.move_aside(self.path, _stamp())
            self._connection = schema.open_writer(self.path)
            kept, self._specs = [spec for _, spec in self._specs.values()], {}
            for spec in kept:
                self._declared(spec)
            for prepare in self._on_reset:
                prepare(self._connection)
            self.moved_aside = moved
        log.error("the sample store was damaged; it is now %s and a fresh one was started", moved)
        return moved

    def close(self) -> None:
        """Close the file; harmless when it is closed already."""
        with self._lock:
            try:
                if not self.read_only:
                    schema.mark_clean(self._connection, True)
            except sqlite3.Error as error:
                log.debug("sample store not marked clean: %s", error)
            self._connection.close()

    def _open_or_start_anew(self) -> sqlite3.Connection:
        try:
            return schema.open_writer(self.path)
        except DamagedError as error:
            self.moved_aside = schema.move_aside(self.path, _stamp())
            log.error("%s; moved to %s, a fresh store was started", error, self.moved_aside)
            return schema.open_writer(self.path)

    def _writable(self) -> None:
        if self.read_only:
            raise StorageError(f"{self.path}: opened for reading only")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise schema.as_storage_error(error, self.path) from error

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._specs.clear()
        self._load_specs()

    def _number(self, query: str, spec: str) -> int:
        with self._guarded():
            if spec not in self._specs:
                self._load_specs()
            if spec not in self._specs:
                return 0
            return int(self._connection.execute(query, (self._specs[spec][0],)).fetchone()[0])

    def _load_specs(self) -> None:
        for number, name, dtype, shape, kind in self._connection.execute(
            "SELECT id, name, dtype, shape, kind FROM specs"
        ):
            axes = tuple(int(axis) for axis in shape.split(","))
            self._specs[name] = (number, TensorSpec(name, cast("DType", dtype), axes, cast("Kind", kind)))

    def _known(self, name: str) -> tuple[int, TensorSpec]:
        if name not in self._specs:
            self._load_specs()
        if name not in self._specs:
            known = ", ".join(sorted(self._specs)) or "none"
            raise ContentError(f"{self.path}: no samples of spec {name!r}; there are {known}")
        return self._specs[name]

    def _declared(self, spec: TensorSpec) -> int:
        if spec.name in self._specs:
            number, known = self._specs[spec.name]
            if (known.dtype, known.shape) != (spec.dtype, spec.shape):
                raise ContentError(
                    f"{self.path}: spec {spec.name!r} is stored as {known.dtype} {known.shape}, now {spec.dtype} "
                    f"{spec.shape}; give the new shape a new name (in a profile: window.name)"
                )
            return number
        shape = ",".join(map(str, spec.shape))
        cursor = self._connection.execute(
            "INSERT INTO specs (name, dtype, shape, kind) VALUES (?, ?, ?, ?)",
            (spec.name, spec.dtype, shape, spec.kind),
        )
        number = int(cursor.lastrowid or 0)
        self._specs[spec.name] = (number, spec)
        return number

    def _insert(self, sample: Sample) -> int:
        if sample.spec not in self._specs:
            self._declared(_inferred(sample))
        number, spec = self._specs[sample.spec]
        spec.check(sample.array[np.newaxis])
        data = (
            np.ascontiguousarray(sample.array)
            .astype(np.dtype(spec.dtype).newbyteorder("<"), copy=False)
            .tobytes()
        )
        digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
        cursor = self._connection.execute(
            "INSERT OR IGNORE INTO samples (spec, start_us, end_us, feature_set, valid, label, digest, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                sample.start_us,
                sample.end_us,
                sample.feature_set,
                sample.valid,
                sample.label,
                digest,
                data,
            ),
        )
        return cursor.rowcount

    def _evict_old(self, touched: set[str]) -> None:
        """Drop samples much older than the newest of their spec; the device's clock has no part in it."""
        if self._max_age_us is None:
            return
        for name in touched:
            number = self._specs[name][0]
            self._connection.execute(
                "DELETE FROM samples WHERE spec=?1 AND start_us < "
                "(SELECT max(start_us) FROM samples WHERE spec=?1) - ?2",
                (number, self._max_age_us),
            )

    def _evict_large(self) -> None:
        used = self._used()
        while used > self._max_bytes:
            total = self._connection.execute("SELECT count(*) FROM samples").fetchone()[0]
            if not total:
                return
            share = max(1, round(total * (used - self._max_bytes) / used))
            self._connection.execute(
                "DELETE FROM samples WHERE id IN (SELECT id FROM samples ORDER BY id LIMIT ?)", (share,)
            )
            used = self._used()

    def _used(self) -> int:
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])


def _inferred(sample: Sample) -> TensorSpec:
    dtype = str(sample.array.dtype)
    if dtype not in ("float32", "uint8", "int32", "int64") or not sample.array.ndim:
        raise ContentError(f"sample of spec {sample.spec!r}: {dtype} {sample.array.shape} cannot be stored")
    kind = _KINDS.get((dtype, sample.array.ndim), "tokens" if dtype.startswith("int") else "window")
    try:
        return TensorSpec(sample.spec, cast("DType", dtype), sample.array.shape, kind)
    except ValueError as error:
        raise ContentError(f"sample of spec {sample.spec!r} cannot be stored: {error}") from error


def _batch(rows: list[tuple[Any, ...]], spec: TensorSpec, path: Path) -> StoredBatch:
    arrays = np.empty((len(rows), *spec.shape), spec.dtype)
    flat = arrays.reshape(len(rows), spec.elements)
    for n, row in enumerate(rows):
        if len(row[5]) != spec.nbytes:
            raise DamagedError(f"{path}: sample {row[0]} has {len(row[5])} bytes, not {spec.nbytes}")
        flat[n] = np.frombuffer(row[5], np.dtype(spec.dtype).newbyteorder("<"))
    return StoredBatch(
        ids=np.array([row[0] for row in rows], np.int64),
        arrays=arrays,
        start_us=np.array([row[1] for row in rows], np.int64),
        end_us=np.array([row[2] for row in rows], np.int64),
        valid=np.array([row[3] for row in rows], np.float32),
        labels=[row[4] for row in rows],
    )


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
