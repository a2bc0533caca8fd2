"""What the server wants of each device: a revision and a document, waited for by long poll, woken by the change."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

import msgspec
from sqlalchemy import delete, insert, select

from hedgerow.server.fleet.tables import DesiredRow
from hedgerow.server.store.database import Database
from hedgerow.shared.messages import BundleTarget, DesiredState, JobAssignment, decode

Change = Callable[[DesiredState], DesiredState]


class DesiredStates:
    """Keeps the desired state of every device in the database and in memory, and wakes those who wait for it.

    The setters commit before they return and may be called from any thread; they block on the disk, so call them
    through ``asyncio.to_thread`` from a coroutine. A device that never had a wish has revision 0 and an empty state.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._states: dict[str, DesiredState] = {}
        self._changing = threading.Lock()
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def load(self) -> None:
        """Read all states; once, at start."""
        with self._database.transaction() as session:
            rows = session.scalars(select(DesiredRow)).all()
        for row in rows:
            self._states[row.device] = decode(row.document, DesiredState)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop on which devices wait."""
        self._loop = loop

    def get(self, device: str) -> DesiredState:
        """Return what is wanted of ``device`` now."""
        return self._states.get(device, DesiredState(0))

    def set_bundle(self, devices: Iterable[str], target: BundleTarget) -> None:
        """Want ``devices`` to serve ``target``, in the place of any version of the same model."""
        self._change(devices, lambda state: with_bundle(state, target))

    def clear_bundle(self, devices: Iterable[str], model: str) -> None:
        """Want nothing of ``model`` from ``devices`` any more."""
        self._change(devices, lambda state: without_bundle(state, model))

    def set_job(self, devices: Iterable[str], job: JobAssignment) -> None:
        """Want ``devices`` to train for ``job``."""
        self._change(devices, lambda state: with_job(state, job))

    def clear_job(self, job_id: str) -> None:
        """Release every device from the job."""
        assigned = [d for d, s in list(self._states.items()) if any(job.job_id == job_id for job in s.jobs)]
        self._change(assigned, lambda state: without_job(state, job_id))

    def devices_of_job(self, job_id: str) -> tuple[str, ...]:
        """Return the devices that are wanted for the job, by name."""
        return tuple(
            sorted(d for d, s in list(self._states.items()) if any(job.job_id == job_id for job in s.jobs))
        )

    def forget(self, device: str) -> None:
        """Want nothing of a device any more (it was revoked); whoever waits for it is woken."""
        self._change([device], lambda state: DesiredState(state.revision))

    async def wait(self, device: str, seen: int, wait_s: float) -> DesiredState | None:
        """Return the state as soon as its revision is not ``seen``; None if that takes longer than ``wait_s``."""
        if self.get(device).revision != seen:
            return self.get(device)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(device, set()).add(woken)
        try:
            # The state may have changed in another thread between the first look and the registration.
            if self.get(device).revision == seen:
                await asyncio.wait_for(woken, wait_s)
        except TimeoutError:
            return None
        finally:
            self._stop_waiting(device, woken)
        state = self.get(device)
        return state if state.revision != seen else None

    def wake_all(self) -> None:
        """End every long poll; at shutdown, on the loop."""
        self._wake(*self._waiting)

    def _change(self, devices: Iterable[str], change: Change) -> None:
        with self._changing:
            changed = {}
            for device in dict.fromkeys(devices):
                before = self.get(device)
                after = change(before)
                if after != before:
                    changed[device] = msgspec.structs.replace(after, revision=before.revision + 1)
            if not changed:
                return
            self._write(changed)
            self._states.update(changed)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, *changed)

    def _write(self, changed: dict[str, DesiredState]) -> None:
        names = list(changed)
        rows = [
            {"device": device, "revision": state.revision, "document": msgspec.json.encode(state)}
            for device, state in changed.items()
        ]
        with self._database.transaction() as session:
            for start in range(0, len(names), 500):
                session.execute(delete(DesiredRow).where(DesiredRow.device.in_(names[start : start + 500])))
            session.execute(insert(DesiredRow), rows)

    def _wake(self, *devices: str) -> None:
        for device in devices:
            for future in self._waiting.get(device, ()):
                if not future.done():
                    future.set_result(None)

    def _stop_waiting(self, device: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(device, set())
        waiting.discard(future)
        if not waiting:
            self._waiting.pop(device, None)


def with_bundle(state: DesiredState, target: BundleTarget) -> DesiredState:
    """Return ``state`` with ``target`` as the wish for its model; models stay in the order they first came."""
    if any(bundle.model == target.model for bundle in state.bundles):
        bundles = tuple(target if bundle.model == target.model else bundle for bundle in state.bundles)
    else:
        bundles = (*state.bundles, target)
    return msgspec.structs.replace(state, bundles=bundles)


def without_bundle(state: DesiredState, model: str) -> DesiredState:
    """Return ``state`` without a wish for ``model``."""
    return msgspec.structs.replace(state, bundles=tuple(b for b in state.bundles if b.model != model))


def with_job(state: DesiredState, job: JobAssignment) -> DesiredState:
    """Return ``state`` with ``job``, once."""
    others = tuple(have for have in state.jobs if have.job_id != job.job_id)
    return state if job in state.jobs else msgspec.structs.replace(state, jobs=(*others, job))


def without_job(state: DesiredState, job_id: str) -> DesiredState:
    """Return ``state`` without the job."""
    return msgspec.structs.replace(state, jobs=tuple(job for job in state.jobs if job.job_id != job_id))
