"""The registry's statements, each inside a transaction that the caller holds.

SQLite takes the write lock at the first writing statement, so what must be checked is read after one.
"""

from __future__ import annotations

from sqlalchemy import exists, func, insert, literal, select, update
from sqlalchemy.orm import Session

from hedgerow.server.registry.aliases import CHAMPION, PREVIOUS, read_aliases
from hedgerow.server.registry.errors import ModelNotFoundError, RegistryConflictError
from hedgerow.server.registry.tables import ModelRow, ModelVersionRow
from hedgerow.server.registry.values import ModelSummary
from hedgerow.server.store.database import utc_now
from hedgerow.shared.bundle import Manifest


def reserve_version(session: Session, model: str) -> int:
    """Raise the counter of ``model`` by one, making the model if it is new, and return it."""
    _ensure_model(session, model)
    session.execute(
        update(ModelRow)
        .where(ModelRow.name == model)
        .values(last_version=ModelRow.last_version + 1)
        .execution_options(synchronize_session=False)
    )
    return session.scalars(select(ModelRow.last_version).where(ModelRow.name == model)).one()


def add_version(session: Session, manifest: Manifest, digest: str, manifest_bytes: int) -> bool:
    """Record the bundle; False if exactly this one is known already.

    Raises RegistryConflictError unless its version is above every registered one of the model.
    """
    _ensure_model(session, manifest.model)
    _raise_counter(session, manifest)
    if session.scalars(select(ModelVersionRow).where(ModelVersionRow.manifest_sha256 == digest)).first():
        return False
    latest = session.scalars(
        select(func.max(ModelVersionRow.version)).where(ModelVersionRow.model == manifest.model)
    ).one()
    if latest is not None and manifest.version <= latest:
        raise RegistryConflictError(
            f"model {manifest.model}: version {manifest.version} is not above {latest}, which is registered; "
            f"ask for the next version and package again"
        )
    session.add(_row_of(manifest, digest, manifest_bytes))
    session.flush()
    return True


def version_row(session: Session, model: str, version: int) -> ModelVersionRow:
    """Return one version's row. Raises ModelNotFoundError."""
    row = session.get(ModelVersionRow, (model, version))
    if row is None:
        raise ModelNotFoundError(f"no version {version} of model {model!r}; models: {known_models(session)}")
    return row


def known_models(session: Session) -> str:
    """Return the first model names, for an error message."""
    names = session.scalars(select(ModelRow.name).order_by(ModelRow.name).limit(20)).all()
    return ", ".join(names) or "none yet"


def summarise(session: Session, row: ModelRow) -> ModelSummary:
    """Return a model's summary."""
    aliases = read_aliases(session, row.name)
    latest, count = session.execute(
        select(func.max(ModelVersionRow.version), func.count()).where(ModelVersionRow.model == row.name)
    ).one()
    return ModelSummary(
        model=row.name,
        latest=latest,
        champion=aliases.get(CHAMPION),
        previous=aliases.get(PREVIOUS),
        versions=count,
        created=row.created,
    )


def _ensure_model(session: Session, model: str) -> None:
    missing = ~exists().where(ModelRow.name == model)
    row = select(literal(model), literal(0), literal(utc_now())).where(missing)
    session.execute(insert(ModelRow).from_select(["name", "last_version", "created"], row))


def _raise_counter(session: Session, manifest: Manifest) -> None:
    session.execute(
        update(ModelRow)
        .where(ModelRow.name == manifest.model, ModelRow.last_version < manifest.version)
        .values(last_version=manifest.version)
        .execution_options(synchronize_session=False)
    )


def _row_of(manifest: Manifest, digest: str, manifest_bytes: int) -> ModelVersionRow:
    lineage, privacy = manifest.lineage, manifest.privacy
    return ModelVersionRow(
        model=manifest.model,
        version=manifest.version,
        manifest_sha256=digest,
        size_bytes=manifest_bytes + sum(artefact.size_bytes for artefact in manifest.artefacts),
        task=manifest.task,
        job_id=lineage.job_id,
        job_name=lineage.job_name,
        rounds=lineage.rounds,
        recipe=lineage.recipe,
        recipe_hash=lineage.recipe_hash,
        feature_set=lineage.feature_set,
        profile=lineage.profile,
        privacy_mode=privacy.mode,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        registered=utc_now(),
    )
