"""The rollouts' statements, each inside a transaction that the caller holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from sqlalchemy import exists, func, insert, literal, select, update
from sqlalchemy.orm import Session

from hedgerow.server.delivery.progress import UNFINISHED, DeviceProgress, DeviceState, Kind, RolloutState
from hedgerow.server.delivery.tables import RolloutDeviceRow, RolloutRow
from hedgerow.server.delivery.values import Rollout
from hedgerow.server.registry.errors import ModelNotFoundError


def rollout_row(session: Session, rollout_id: int) -> RolloutRow:
    """Return one rollout's row. Raises ModelNotFoundError."""
    row = session.get(RolloutRow, rollout_id)
    if row is None:
        raise ModelNotFoundError(f"no rollout {rollout_id}")
    return row


def rollout_state(row: RolloutRow) -> RolloutState:
    """Return the row's state as the state machine names it."""
    return cast("RolloutState", row.state)


def supersede(session: Session, model: str, now: datetime) -> None:
    """End every rollout of ``model`` that is in force: a newer one takes its place."""
    session.execute(
        update(RolloutRow)
        .where(RolloutRow.model == model, RolloutRow.state != "superseded")
        .values(state="superseded", changed=now)
        .execution_options(synchronize_session="fetch")
    )


def add_devices(
    session: Session, rollout_id: int, devices: Sequence[str], deadline: datetime, now: datetime
) -> None:
    """Add devices as pending; those already there stay as they are."""
    columns = ["rollout_id", "device", "state", "reason", "runtime", "precision", "deadline", "changed"]
    for device in devices:
        there = exists().where(RolloutDeviceRow.rollout_id == rollout_id, RolloutDeviceRow.device == device)
        values = [rollout_id, device, "pending", "", "", "", deadline, now]
        row = select(*(literal(value) for value in values)).where(~there)
        session.execute(insert(RolloutDeviceRow).from_select(columns, row))


def device_progress(session: Session, rollout_id: int, device: str) -> DeviceProgress | None:
    """Return one device's place; None if the rollout does not know it."""
    row = session.get(RolloutDeviceRow, (rollout_id, device))
    return None if row is None else _progress(row)


def all_progress(session: Session, rollout_id: int) -> list[DeviceProgress]:
    """Return every device's place, by name."""
    found = session.scalars(
        select(RolloutDeviceRow)
        .where(RolloutDeviceRow.rollout_id == rollout_id)
        .order_by(RolloutDeviceRow.device)
    )
    return [_progress(row) for row in found]


def save_progress(session: Session, rollout_id: int, progress: DeviceProgress, now: datetime) -> None:
    """Store where a device is."""
    row = session.get(RolloutDeviceRow, (rollout_id, progress.device))
    if row is None:
        raise ModelNotFoundError(f"rollout {rollout_id} has no device {progress.device}")
    row.state, row.reason, row.changed = progress.state, progress.reason, now
    row.runtime, row.precision = progress.runtime, progress.precision
    session.flush()


def remove_device(session: Session, rollout_id: int, device: str) -> bool:
    """Forget one device's place; False if there was none."""
    row = session.get(RolloutDeviceRow, (rollout_id, device))
    if row is None:
        return False
    session.delete(row)
    session.flush()
    return True


def next_deadline(session: Session) -> datetime | None:
    """Return the earliest deadline of an unfinished device in a rollout in force."""
    return session.scalars(
        select(func.min(RolloutDeviceRow.deadline))
        .join(RolloutRow, RolloutRow.id == RolloutDeviceRow.rollout_id)
        .where(RolloutRow.state != "superseded", RolloutDeviceRow.state.in_(UNFINISHED))
    ).one()


def in_force(session: Session) -> list[Rollout]:
    """Return the rollouts that no newer one superseded, one a model."""
    found = session.scalars(
        select(RolloutRow).where(RolloutRow.state != "superseded").order_by(RolloutRow.model)
    )
    return [describe(session, row) for row in found]


def newest(session: Session, limit: int) -> list[Rollout]:
    """Return the newest rollouts first."""
    found = session.scalars(select(RolloutRow).order_by(RolloutRow.id.desc()).limit(limit))
    return [describe(session, row) for row in found]


def describe(session: Session, row: RolloutRow) -> Rollout:
    """Return a rollout with its counts."""
    counts = session.execute(
        select(RolloutDeviceRow.state, func.count())
        .where(RolloutDeviceRow.rollout_id == row.id)
        .group_by(RolloutDeviceRow.state)
    )
    return Rollout(
        id=row.id,
        model=row.model,
        version=row.version,
        manifest_sha256=row.manifest_sha256,
        kind=cast("Kind", row.kind),
        state=rollout_state(row),
        started=row.started,
        changed=row.changed,
        devices={state: int(count) for state, count in counts},
    )


def _progress(row: RolloutDeviceRow) -> DeviceProgress:
    return DeviceProgress(
        device=row.device,
        state=cast("DeviceState", row.state),
        deadline=row.deadline,
        reason=row.reason,
        runtime=row.runtime,
        precision=row.precision,
    )
