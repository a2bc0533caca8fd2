"""Moves aliases by compare-and-swap, inside a transaction that the caller holds."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError as DuplicateKey
from sqlalchemy.orm import Session

from hedgerow.server.registry.errors import RegistryConflictError
from hedgerow.server.registry.tables import AliasRow
from hedgerow.server.store.database import utc_now

CHAMPION = "champion"
PREVIOUS = "previous"


def read_aliases(session: Session, model: str) -> dict[str, int]:
    """Return what each alias of ``model`` stands for."""
    rows = session.scalars(select(AliasRow).where(AliasRow.model == model))
    return {row.alias: row.version for row in rows}


def after_promotion(current: Mapping[str, int], version: int) -> dict[str, int]:
    """Return the aliases once ``version`` is champion; the old champion becomes ``previous``."""
    champion = current.get(CHAMPION)
    if champion is None or champion == version:
        return {**current, CHAMPION: version}
    return {**current, CHAMPION: version, PREVIOUS: champion}


def after_rollback(current: Mapping[str, int], model: str) -> dict[str, int]:
    """Return the aliases with ``champion`` and ``previous`` exchanged.

    Raises RegistryConflictError if there is nothing to go back to.
    """
    if CHAMPION not in current or PREVIOUS not in current:
        raise RegistryConflictError(f"model {model}: there is no previous version to roll back to")
    return {**current, CHAMPION: current[PREVIOUS], PREVIOUS: current[CHAMPION]}


def swap_aliases(
    session: Session, model: str, expected: Mapping[str, int], wanted: Mapping[str, int]
) -> None:
    """Make the aliases ``wanted`` if they still are ``expected``; all of them or, by the transaction, none.

    Raises RegistryConflictError if another change came first; the caller's transaction then rolls back.
    """
    for alias in sorted(set(expected) | set(wanted)):
        before, after = expected.get(alias), wanted.get(alias)
        if not _swap_one(session, model, alias, before, after):
            raise RegistryConflictError(
                f"model {model}: {alias} is no longer version {before}; look again and repeat"
            )


def _swap_one(session: Session, model: str, alias: str, before: int | None, after: int | None) -> bool:
    if before is None:
        return after is None or _insert(session, model, alias, after)
    mine = (AliasRow.model == model, AliasRow.alias == alias, AliasRow.version == before)
    statement = (
        delete(AliasRow).where(*mine)
        if after is None
        else update(AliasRow).where(*mine).values(version=after, moved=utc_now())
    )
    result = session.execute(statement.execution_options(synchronize_session=False))
    return bool(result.rowcount == 1)  # type: ignore[attr-defined]


def _insert(session: Session, model: str, alias: str, version: int) -> bool:
    # No savepoint: releasing one that opened SQLite's transaction would commit half of the move.
    try:
        session.add(AliasRow(model=model, alias=alias, version=version, moved=utc_now()))
        session.flush()
    except DuplicateKey:
        return False
    return True
