"""The registry service: registers bundles for good, finds them again, moves the aliases.

Every method blocks on the database or the disk; from the event loop, call it in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from hedgerow.server.bus import Bus
from hedgerow.server.registry import bundlefolder, rows
from hedgerow.server.registry.aliases import (
    CHAMPION,
    after_promotion,
    after_rollback,
    read_aliases,
    swap_aliases,
)
from hedgerow.server.registry.errors import ModelNotFoundError, RegistryConflictError
from hedgerow.server.registry.tables import ModelRow, ModelVersionRow
from hedgerow.server.registry.values import ModelSummary, ModelVersion
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.bundle import Manifest, decode_manifest


class OpenedBundle(msgspec.Struct, frozen=True):
    """A registered bundle's files: manifest bytes as signed and hashed, and where each artefact's bytes lie."""

    manifest: Manifest
    manifest_bytes: bytes
    manifest_sha256: str
    manifest_path: Path
    artefacts: dict[str, Path]


class Registry:
    """Immutable model versions. Versions of one model only ever grow; a version's content never changes."""

    def __init__(self, database: Database, blobs: Blobs, bus: Bus) -> None:
        self._database = database
        self._blobs = blobs
        self._bus = bus

    def next_version(self, model: str) -> int:
        """Reserve and return the version that the next bundle of ``model`` must carry.

        Two callers never get the same number; a number that is never registered leaves a gap.
        """
        bundlefolder.check_name(model)
        with self._database.transaction() as session:
            return rows.reserve_version(session, model)

    def register(self, folder: Path) -> ModelVersion:
        """Keep the bundle in ``folder`` for good; the folder may be deleted afterwards.

        The same manifest bytes again give back the version they already are. Raises ContentError (or
        IntegrityError) if the bundle is not what its manifest says or its gate is not passed,
        RegistryConflictError if its version is taken or not above all registered ones, StorageError.
        """
        manifest, data = bundlefolder.read_manifest(folder)
        for _artefact, content in bundlefolder.read_artefacts(folder, manifest):
            self._blobs.put(content)
        digest = self._blobs.put(data)
        with self._database.transaction() as session:
            is_new = rows.add_version(session, manifest, digest, len(data))
        if is_new:
            self._bus.publish(
                "model.registered", model=manifest.model, version=manifest.version, manifest_sha256=digest
            )
        return self.get(manifest.model, manifest.version)

    def open(self, model: str, version: int) -> OpenedBundle:
        """Return the bundle's manifest and the paths of its artefacts, every hash checked against the disk.

        Raises ModelNotFoundError, StorageError if a blob is missing, IntegrityError if the disk changed one.
        """
        with self._database.transaction() as session:
            digest = rows.version_row(session, model, version).manifest_sha256
        data = self._blobs.get(digest)
        manifest = decode_manifest(data)
        paths = {artefact.file: self._blobs.path(artefact.sha256) for artefact in manifest.artefacts}
        for artefact in manifest.artefacts:
            bundlefolder.check_file(paths[artefact.file], artefact)
        return OpenedBundle(manifest, data, digest, self._blobs.path(digest), paths)

    def manifest(self, model: str, version: int) -> Manifest:
        """Return one version's manifest. Raises ModelNotFoundError."""
        with self._database.transaction() as session:
            digest = rows.version_row(session, model, version).manifest_sha256
        return decode_manifest(self._blobs.get(digest))

    def get(self, model: str, version: int) -> ModelVersion:
        """Return one version. Raises ModelNotFoundError."""
        with self._database.transaction() as session:
            return self._describe(rows.version_row(session, model, version), read_aliases(session, model))

    def list_models(self) -> list[ModelSummary]:
        """Return every model name, in order."""
        with self._database.transaction() as session:
            found = session.scalars(select(ModelRow).order_by(ModelRow.name)).all()
            return [rows.summarise(session, row) for row in found]

    def list_versions(self, model: str) -> list[ModelVersion]:
        """Return the versions of ``model``, newest first. Raises ModelNotFoundError."""
        with self._database.transaction() as session:
            if session.get(ModelRow, model) is None:
                raise ModelNotFoundError(f"no model {model!r}; known: {rows.known_models(session)}")
            aliases = read_aliases(session, model)
            found = session.scalars(
                select(ModelVersionRow)
                .where(ModelVersionRow.model == model)
                .order_by(ModelVersionRow.version.desc())
            ).all()
            return [self._describe(row, aliases) for row in found]

    def resolve(self, reference: str) -> ModelVersion:
        """Return the version behind ``name@champion``, ``name@previous``, ``name@3`` or ``name`` (its champion).

        Raises ModelNotFoundError.
        """
        model, _, wanted = reference.partition("@")
        wanted = wanted or CHAMPION
        if wanted.isascii() and wanted.isdigit() and len(wanted) <= 9:
            return self.get(model, int(wanted))
        version = self.aliases(model).get(wanted)
        if version is None:
            raise ModelNotFoundError(f"model {model!r} has no {wanted!r}; use {model}@VERSION")
        return self.get(model, version)

    def find_by_job(self, job_id: str) -> ModelVersion | None:
        """Return the newest version that came from this job, so that finishing a job again registers nothing twice."""
        with self._database.transaction() as session:
            row = session.scalars(
                select(ModelVersionRow)
                .where(ModelVersionRow.job_id == job_id)
                .order_by(ModelVersionRow.registered.desc())
            ).first()
            return None if row is None else self._describe(row, read_aliases(session, row.model))

    def aliases(self, model: str) -> dict[str, int]:
        """Return what ``champion`` and ``previous`` stand for; empty before the first promotion."""
        with self._database.transaction() as session:
            return read_aliases(session, model)

    def promote(self, session: Session, model: str, version: int) -> None:
        """Make ``version`` champion within the caller's transaction; the old champion becomes ``previous``.

        Raises ModelNotFoundError, RegistryConflictError if the version was yanked or another change came first.
        """
        row = rows.version_row(session, model, version)
        if row.yanked is not None:
            raise RegistryConflictError(f"model {model} version {version} was yanked: {row.yank_reason}")
        current = read_aliases(session, model)
        swap_aliases(session, model, current, after_promotion(current, version))

    def rollback_target(self, model: str, aliases: Mapping[str, int]) -> int:
        """Return the version that a rollback would go to.

        Raises RegistryConflictError if there is no previous version, or it was yanked.
        """
        wanted = after_rollback(aliases, model)[CHAMPION]
        with self._database.transaction() as session:
            row = rows.version_row(session, model, wanted)
            if row.yanked is not None:
                raise RegistryConflictError(f"model {model} version {wanted} was yanked: {row.yank_reason}")
        return wanted

    def swap_back(self, session: Session, model: str, expected: Mapping[str, int]) -> None:
        """Exchange champion and previous within the caller's transaction, if they still are ``expected``.

        Raises RegistryConflictError if another change came first.
        """
        swap_aliases(session, model, expected, after_rollback(expected, model))

    def mark_yanked(self, model: str, version: int, reason: str) -> None:
        """Remember that ``version`` must never be offered again.

        Raises ModelNotFoundError, RegistryConflictError while it is champion.
        """
        with self._database.transaction() as session:
            row = rows.version_row(session, model, version)
            if read_aliases(session, model).get(CHAMPION) == version:
                raise RegistryConflictError(
                    f"model {model} version {version} is champion: roll back first, then yank it"
                )
            if row.yanked is None:
                row.yanked, row.yank_reason = utc_now(), reason[:1000]

    def _describe(self, row: ModelVersionRow, aliases: dict[str, int]) -> ModelVersion:
        manifest = decode_manifest(self._blobs.get(row.manifest_sha256))
        return ModelVersion(
            model=row.model,
            version=row.version,
            manifest_sha256=row.manifest_sha256,
            size_bytes=row.size_bytes,
            task=row.task,
            lineage=manifest.lineage,
            privacy=manifest.privacy,
            registered=row.registered,
            aliases=tuple(sorted(name for name, version in aliases.items() if version == row.version)),
            yanked=row.yanked,
            yank_reason=row.yank_reason,
        )
