"""Rollouts: tells all devices which version to serve, follows them until they serve it, goes back by command.

Every method blocks on the database or the disk; from the event loop, call it in a thread. The order of each change
is: sign the bundle, commit rollout and aliases in one transaction, set the desired state, publish the news. A crash
in between is mended by ``resume``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from hedgerow.server.bus import Bus
from hedgerow.server.delivery import rows
from hedgerow.server.delivery.desired import DesiredStates
from hedgerow.server.delivery.progress import DeviceProgress, Kind, RolloutState, advance, expire, summarise
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.delivery.tables import RolloutRow
from hedgerow.server.delivery.values import Rollout
from hedgerow.server.registry.aliases import CHAMPION
from hedgerow.server.registry.errors import RegistryConflictError
from hedgerow.server.registry.service import Registry
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.messages import BundleTarget, ReportedState

DEVICE_DEADLINE = timedelta(hours=1)


class Rollouts:
    """Brings registered versions to the fleet, all devices at once.

    ``active_devices`` returns the ids of all registered devices that are not revoked.
    """

    def __init__(
        self,
        database: Database,
        bus: Bus,
        *,
        registry: Registry,
        repository: TufRepository,
        desired: DesiredStates,
        active_devices: Callable[[], Sequence[str]],
        device_deadline: timedelta = DEVICE_DEADLINE,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._bus = bus
        self._registry = registry
        self._repository = repository
        self._desired = desired
        self._active_devices = active_devices
        self._device_deadline = device_deadline
        self._now = now

    def start(self, model: str, version: int) -> Rollout:
        """Make ``version`` champion and the desired bundle of every device.

        The version in force again gives back its rollout. Raises ModelNotFoundError, RegistryConflictError (yanked,
        older than the champion: use ``rollback``, or another change came first), StorageError, AuthError.
        """
        champion = self._registry.aliases(model).get(CHAMPION, 0)
        if version < champion:
            raise RegistryConflictError(
                f"model {model}: version {version} is older than the champion, {champion}; use rollback to go back"
            )
        current = self.current(model)
        if current is not None and current.version == version:
            self._apply(current)
            return current
        self._repository.publish(self._registry.open(model, version))
        with self._database.transaction() as session:
            self._registry.promote(session, model, version)
            rollout = self._begin(session, model, version, "rollout")
        return self._announce(rollout)

    def rollback(self, model: str) -> Rollout:
        """Exchange champion and previous, and send every device back. Raises RegistryConflictError if none is."""
        aliases = self._registry.aliases(model)
        back = self._registry.rollback_target(model, aliases)
        self._repository.publish(self._registry.open(model, back))
        self._repository.allow_rollback(model, back)
        with self._database.transaction() as session:
            self._registry.swap_back(session, model, aliases)
            rollout = self._begin(session, model, back, "rollback")
        return self._announce(rollout)

    def yank(self, model: str, version: int, reason: str) -> None:
        """Never offer ``version`` again: recorded, then unsigned. Raises RegistryConflictError while champion."""
        self._registry.mark_yanked(model, version, reason)
        self._repository.yank(model, version)

    def on_joined(self, device: str) -> None:
        """Give a device that joined the bundles in force."""
        for rollout in self.in_force():
            with self._database.transaction() as session:
                rows.add_devices(
                    session, rollout.id, [device], self._now() + self._device_deadline, self._now()
                )
                self._settle(session, rollout.id)
            self._desired.set_bundle([device], _target(rollout))
            self._tell(rollout.id)

    def on_removed(self, device: str) -> None:
        """Stop waiting for a device that was revoked."""
        for rollout in self.in_force():
            with self._database.transaction() as session:
                if not rows.remove_device(session, rollout.id, device):
                    continue
                self._settle(session, rollout.id)
            self._tell(rollout.id)

    def on_reported(self, device: str, reported: ReportedState) -> None:
        """Take in what a device says of its bundles; unknown devices and old news change nothing."""
        for rollout in self.in_force():
            with self._database.transaction() as session:
                before = rows.device_progress(session, rollout.id, device)
                if before is None:
                    continue
                after = advance(before, reported, rollout.model, rollout.manifest_sha256)
                if after == before:
                    continue
                rows.save_progress(session, rollout.id, after, self._now())
                self._settle(session, rollout.id)
            self._tell(rollout.id)

    def expire_due(self) -> int:
        """Count silent devices past their deadline as timed out; return how many were."""
        expired = 0
        for rollout in self.in_force():
            with self._database.transaction() as session:
                late = [
                    after
                    for before in rows.all_progress(session, rollout.id)
                    if (after := expire(before, self._now())) != before
                ]
                for progress in late:
                    rows.save_progress(session, rollout.id, progress, self._now())
                self._settle(session, rollout.id)
            if late:
                expired += len(late)
                self._tell(rollout.id)
        return expired

    def next_deadline(self) -> datetime | None:
        """Return when ``expire_due`` has something to do next; None while no device is awaited."""
        with self._database.transaction() as session:
            return rows.next_deadline(session)

    def resume(self) -> None:
        """Set the desired state of every rollout in force again, after a restart; repeats do no harm."""
        for rollout in self.in_force():
            self._apply(rollout)

    def in_force(self) -> list[Rollout]:
        """Return the newest rollout of each model."""
        with self._database.transaction() as session:
            return rows.in_force(session)

    def current(self, model: str) -> Rollout | None:
        """Return the rollout of ``model`` in force."""
        return next((rollout for rollout in self.in_force() if rollout.model == model), None)

    def list_rollouts(self, limit: int = 100) -> list[Rollout]:
        """Return the newest rollouts first, with counts of devices per state."""
        with self._database.transaction() as session:
            return rows.newest(session, limit)

    def get(self, rollout_id: int) -> Rollout:
        """Return one rollout. Raises ModelNotFoundError."""
        with self._database.transaction() as session:
            return rows.describe(session, rows.rollout_row(session, rollout_id))

    def devices(self, rollout_id: int) -> list[DeviceProgress]:
        """Return each device's place in one rollout, by name."""
        with self._database.transaction() as session:
            return rows.all_progress(session, rollout_id)

    def _begin(self, session: Session, model: str, version: int, kind: Kind) -> Rollout:
        digest = self._registry.get(model, version).manifest_sha256
        rows.supersede(session, model, self._now())
        row = RolloutRow(
            model=model,
            version=version,
            manifest_sha256=digest,
            kind=kind,
            state="running",
            started=self._now(),
            changed=self._now(),
        )
        session.add(row)
        session.flush()
        devices = self._active_devices()
        rows.add_devices(session, row.id, devices, self._now() + self._device_deadline, self._now())
        self._settle(session, row.id)
        return rows.describe(session, row)

    def _settle(self, session: Session, rollout_id: int) -> RolloutState:
        row = rows.rollout_row(session, rollout_id)
        if row.state != "superseded":
            state = summarise(p.state for p in rows.all_progress(session, rollout_id))
            if state != row.state:
                row.state, row.changed = state, self._now()
                session.flush()
        return rows.rollout_state(row)

    def _apply(self, rollout: Rollout) -> None:
        devices: Sequence[str] = [progress.device for progress in self.devices(rollout.id)]
        if devices:
            self._desired.set_bundle(devices, _target(rollout))

    def _announce(self, rollout: Rollout) -> Rollout:
        self._apply(rollout)
        self._tell(rollout.id)
        return rollout

    def _tell(self, rollout_id: int) -> None:
        now = self.get(rollout_id)
        self._bus.publish(
            "rollout.changed",
            rollout=now.id,
            model=now.model,
            version=now.version,
            kind=now.kind,
            state=now.state,
            devices=dict(now.devices),
        )


def _target(rollout: Rollout) -> BundleTarget:
    return BundleTarget(
        model=rollout.model,
        version=rollout.version,
        manifest_sha256=rollout.manifest_sha256,
        rollback_ok=rollout.kind == "rollback",
    )
