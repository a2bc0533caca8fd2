"""Brings the bundles that the server wants into service: fetched by the updater, checked, switched, confirmed.

One thread, one bundle at a time. What serves goes on serving until its successor has passed every check; what cannot
be reached is tried again with growing pauses, what is refused is not tried again until it is wanted anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from hedgerow.edge_agent.inference.served import Served
from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.edge_agent.slots.slots import Slots
from hedgerow.edge_agent.updater.result import UpdateResult
from hedgerow.shared.errors import ContentError, HedgerowError, StorageError, TransportError
from hedgerow.shared.messages import BundleReport, BundleTarget

log = logging.getLogger(__name__)
T = TypeVar("T")
State = Literal["downloading", "verified", "serving", "failed"]


class Inference(Protocol):
    """The engine, as the least that installing needs."""

    def prepare(self, folder: Path) -> Served:
        """Open and check a bundle without letting it serve."""

    def switch(self, served: Served) -> None:
        """Let a prepared bundle serve."""

    def load(self, folder: Path) -> None:
        """Prepare and switch."""

    def reports(self) -> tuple[BundleReport, ...]:
        """Return what serves."""


class Updater(Protocol):
    """Fetches and verifies one bundle into its model's slots."""

    def run(self, target: BundleTarget) -> UpdateResult:
        """Return what became of it."""


class Installer:
    """Follows the wanted bundles. ``on_change`` is called when a report changed, ``on_notice`` with what went wrong."""

    def __init__(
        self,
        slots_root: Path,
        engine: Inference,
        updater: Updater,
        *,
        on_change: Callable[[], None],
        on_notice: Callable[[str, str], None],
    ) -> None:
        self._root = slots_root
        self._engine = engine
        self._updater = updater
        self._on_change = on_change
        self._on_notice = on_notice
        self._lock = threading.Lock()
        self._wanted: tuple[BundleTarget, ...] = ()
        self._states: dict[str, BundleReport] = {}
        self._refused: set[BundleTarget] = set()
        self._retry = Reconnect(longest_s=60.0)
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hedgerow-installer", daemon=True)

    def start(self) -> None:
        """Load what is installed, then follow what is wanted."""
        for model in Slots.models(self._root):
            self._load_installed(model)
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Stop following; the updater is stopped by whoever owns it."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(deadline_s)

    def want(self, targets: tuple[BundleTarget, ...]) -> None:
        """Set what should serve. A target that was refused is tried again if it comes back after another."""
        with self._lock:
            self._refused &= set(targets)
            self._wanted = targets
        self._wake.set()

    def reports(self) -> tuple[BundleReport, ...]:
        """Return what serves and what is on its way or failed, the latter last."""
        serving = self._engine.reports()
        hashes = {report.manifest_sha256 for report in serving}
        with self._lock:
            wanted = {target.manifest_sha256 for target in self._wanted}
            others = [r for r in self._states.values() if r.manifest_sha256 in wanted - hashes]
        return (*serving, *others)

    def _run(self) -> None:
        wait_s: float | None = None
        while True:
            self._wake.wait(wait_s)
            self._wake.clear()
            if self._stopping:
                return
            try:
                wait_s = self._step()
            except (
                Exception
            ) as error:  # the thread's boundary: a fault in one update must not end all updates
                log.exception("installing failed")
                wait_s = self._retry.failed(TransportError(f"{type(error).__name__}: {error}"))
                self._on_notice("install-failed", f"{type(error).__name__}: {error}; tried again")

    def _step(self) -> float | None:
        """Install what is missing; return the seconds until another try, None if nothing is left to try."""
        wait_s: float | None = None
        for target in self._missing():
            if self._stopping:
                return None
            result = self._install(target)
            if result is None:
                self._retry.succeeded()
                continue
            why = f"{result.reason}: {result.detail}"
            self._note(target, "downloading" if result.retry else "failed", why)
            if result.retry:
                wait_s = self._retry.failed(TransportError(why))
            else:
                with self._lock:
                    self._refused.add(target)
                self._on_notice("bundle-refused", f"{target.model} version {target.version}: {result.detail}")
        return wait_s

    def _missing(self) -> list[BundleTarget]:
        serving = {report.manifest_sha256 for report in self._engine.reports()}
        with self._lock:
            return [t for t in self._wanted if t.manifest_sha256 not in serving and t not in self._refused]

    def _install(self, target: BundleTarget) -> UpdateResult | None:
        """Return None once the target serves, else what stood in the way."""
        self._note(target, "downloading", "")
        result = self._updater.run(target)
        if not result.ok:
            return result
        self._note(target, "verified", "")
        try:
            self._bring_in(target)
        except StorageError as error:
            return msgspec.structs.replace(result, reason="storage", detail=str(error))
        except HedgerowError as error:
            return msgspec.structs.replace(result, reason="mismatch", detail=str(error))
        log.info("%s version %d serves", target.model, target.version)
        self._note(target, "serving", "")
        return None

    def _bring_in(self, target: BundleTarget) -> None:
        slots = Slots(self._root, target.model)
        staged = slots.find(target.manifest_sha256)
        if staged is None:
            raise HedgerowError("the staged bundle is gone from its slot")
        prepared = _named_faults(self._engine.prepare, staged)
        try:
            slots.activate(target.manifest_sha256)
        except HedgerowError:
            prepared.retire()
            raise
        self._engine.switch(prepared)
        if not target.rollback_ok:
            self._confirm(slots)

    def _confirm(self, slots: Slots) -> None:
        """Note that the active version serves. It serves whether or not that can be written; the next start notes it."""
        try:
            installed = slots.check().installed
            if installed is not None:
                slots.confirm(installed)
        except HedgerowError as error:
            self._on_notice("not-confirmed", f"{slots.model}: {error}")

    def _load_installed(self, model: str) -> None:
        """Let the active slot serve, or the one before it, or nothing; say why it is not the active one."""
        slots = Slots(self._root, model)
        try:
            choice = slots.check()
        except HedgerowError as error:
            # A full disk cannot switch the slots; what lies in the other one serves all the same.
            self._on_notice("slot-damaged", f"{model}: {error}")
            self._serve_or_tell(model, slots.idle)
            return
        if choice.source != "champion" and choice.reason:
            self._on_notice("slot-damaged", f"{model}: {choice.reason}; {choice.source} serves")
        if choice.folder is None or choice.installed is None:
            return
        try:
            self._serve(model, choice.folder)
        except HedgerowError as error:
            self._on_notice("bundle-unfit", f"{model}: {error}")
            self._serve_or_tell(model, slots.rollback)
            return
        self._confirm(slots)

    def _serve(self, model: str, folder: Path) -> None:
        started = time.monotonic()
        _named_faults(self._engine.load, folder)
        log.info("%s serves from %s after %.2f s", model, folder.name, time.monotonic() - started)

    def _serve_or_tell(self, model: str, folder: Callable[[], Path]) -> None:
        try:
            self._serve(model, folder())
        except HedgerowError as error:
            self._on_notice("no-model", f"{model}: {error}; the baseline serves")

    def _note(self, target: BundleTarget, state: State, reason: str) -> None:
        report = BundleReport(
            target.model, target.version, target.manifest_sha256, state, reason=reason[:1000]
        )
        with self._lock:
            if self._states.get(target.model) == report:
                return
            self._states[target.model] = report
        self._on_change()


def _named_faults(use: Callable[[Path], T], folder: Path) -> T:
    """Call an engine with a bundle. Whatever breaks on a bundle is the bundle's fault: raised as ContentError."""
    try:
        return use(folder)
    except HedgerowError:
        raise
    except Exception as error:  # a plug-in boundary: engines raise what they like on a file they dislike
        raise ContentError(f"{folder.name}: {type(error).__name__}: {error}") from error
