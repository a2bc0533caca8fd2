"""The slots of one model: ``a`` and ``b``, ``active`` pointing at the one that serves, ``incoming`` being filled.

At every moment ``active`` points at one complete slot or at nothing: a bundle is filled into ``incoming``, sealed by
a record written last, moved into the idle slot, and only then switched to. A crash anywhere leaves the slot that
served serving. At most three versions are on disk: active, previous, incoming.

One process at a time changes a model's slots: the agent waits for its updater before it activates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from hedgerow.edge_agent.slots import disk
from hedgerow.edge_agent.slots.record import Confirmed, Installed, InstalledFile, encode_record
from hedgerow.shared.errors import ConfigError, ContentError, IntegrityError, StorageError
from hedgerow.shared.files import flush_folder, point_to, write_atomically

SLOT_NAMES = ("a", "b")
ACTIVE = "active"
INCOMING = "incoming"
CONFIRMED = "confirmed.json"
_MODEL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Choice(msgspec.Struct, frozen=True):
    """Which bundle serves. ``folder`` None means none is fit: the baseline serves. ``reason`` says why.

    ``source`` is ``champion`` (the active slot), ``previous`` (the active one was damaged) or ``none``.
    """

    folder: Path | None
    installed: Installed | None
    source: str
    reason: str = ""


class Slots:
    """The slots of ``model`` under ``root``. ``step`` is called before each change on disk, by name."""

    def __init__(self, root: Path, model: str, *, step: Callable[[str], None] | None = None) -> None:
        if not _MODEL.fullmatch(model):
            raise ConfigError(f"model name {model[:80]!r}: use a-z, 0-9 and -, at most 63 characters")
        self.model = model
        self.folder = root / model
        self._step = step or (lambda _name: None)

    @staticmethod
    def models(root: Path) -> list[str]:
        """Return the models that have slots under ``root``."""
        if not root.is_dir():
            return []
        return sorted(p.name for p in root.iterdir() if p.is_dir() and _MODEL.fullmatch(p.name))

    @property
    def incoming(self) -> Path:
        """Where the next bundle is filled; partial downloads in it survive restarts."""
        return self.folder / INCOMING

    def active(self) -> Path | None:
        """Return the folder of the bundle that serves; None before the first. Does not check it: see ``check``."""
        name = self._active_name()
        return None if name is None else self.folder / name

    def idle(self) -> Path:
        """Return the slot that does not serve; it holds the previous bundle, if there is one."""
        return self.folder / ("b" if self._active_name() == "a" else "a")

    def previous(self) -> Installed | None:
        """Return what the idle slot holds, if it is intact."""
        if self._active_name() is None:
            return None
        return disk.slot_fault(self.idle())[0]

    def find(self, manifest_sha256: str) -> Path | None:
        """Return the folder that holds this bundle complete and intact: active, idle or incoming."""
        candidates = [self.folder / name for name in SLOT_NAMES] + [self.incoming]
        for folder in candidates:
            installed, _ = disk.slot_fault(folder)
            if installed is not None and installed.manifest_sha256 == manifest_sha256:
                return folder
        return None

    def prepare(self, manifest_sha256: str) -> Path:
        """Return ``incoming``, kept if it is being filled with this bundle, else emptied. Raises StorageError."""
        marker = self.incoming / ".filling"
        try:
            if not (marker.is_file() and marker.read_bytes() == manifest_sha256.encode("ascii")):
                self._step("empty-incoming")
                disk.empty_slot(self.incoming)
                self.incoming.mkdir(parents=True)
                write_atomically(marker, manifest_sha256.encode("ascii"))
        except OSError as error:
            raise StorageError(f"{self.incoming}: cannot prepare: {error.strerror}") from error
        return self.incoming

    def seal(self, version: int, manifest_sha256: str, files: Mapping[str, InstalledFile]) -> Installed:
        """Declare ``incoming`` complete, after reading every file back.

        Raises IntegrityError if a file on disk is not what ``files`` promises, StorageError.
        """
        installed = Installed(self.model, version, manifest_sha256, dict(files))
        disk.verify_slot(self.incoming, installed)
        self._step("seal")
        write_atomically(self.incoming / disk.RECORD, encode_record(installed))
        return installed

    def discard_incoming(self) -> None:
        """Throw away what is being filled. Raises StorageError."""
        disk.empty_slot(self.incoming)

    def activate(self, manifest_sha256: str) -> Path:
        """Switch to the bundle, wherever it lies, and return its folder; the old one becomes the previous.

        Raises IntegrityError if no slot holds it intact, StorageError; the serving bundle then stays.
        """
        found = self.find(manifest_sha256)
        if found is None:
            raise IntegrityError(f"model {self.model}: no slot holds bundle {manifest_sha256[:12]}… intact")
        if found == self.incoming:
            found = self._move_in()
        if found.name != self._active_name():
            self._step("switch")
            point_to(self.folder / ACTIVE, found)
        self._step("done")
        return found

    def rollback(self) -> Path:
        """Switch to the previous bundle and return its folder; needs no network.

        Raises IntegrityError if there is none that is intact.
        """
        previous = self.previous()
        if previous is None:
            raise IntegrityError(f"model {self.model}: no intact previous bundle to go back to")
        return self.activate(previous.manifest_sha256)

    def check(self) -> Choice:
        """Decide what serves, at start: the active slot if it is what was installed, else the other one, else none.

        Reads every file of the slot once. Switches ``active`` if the other slot takes over.
        """
        disk.sweep(self.folder)
        name = self._active_name()
        if name is None:
            return Choice(None, None, "none", "no bundle was activated yet")
        installed, fault = disk.slot_fault(self.folder / name)
        if installed is not None:
            return Choice(self.folder / name, installed, "champion")
        idle = self.idle()
        other, other_fault = disk.slot_fault(idle)
        if other is None:
            return Choice(None, None, "none", f"slot {name}: {fault}; slot {idle.name}: {other_fault}")
        self._step("fall-back")
        point_to(self.folder / ACTIVE, idle)
        return Choice(idle, other, "previous", f"slot {name}: {fault}")

    def confirmed(self) -> Confirmed | None:
        """Return the newest version that served here.

        A damaged record counts as the newest version that is intact in a slot: a floor that was reached for sure.
        """
        try:
            return disk.read_record(self.folder / CONFIRMED, Confirmed)
        except ContentError:
            held = [disk.slot_fault(self.folder / name)[0] for name in SLOT_NAMES]
            known = [slot for slot in held if slot is not None]
            newest = max(known, key=lambda slot: slot.version, default=None)
            return None if newest is None else Confirmed(newest.version, newest.manifest_sha256)

    def confirm(self, installed: Installed) -> None:
        """Remember that this bundle serves well; the record only ever rises. Raises StorageError."""
        known = self.confirmed()
        if known is None or installed.version > known.version:
            self._step("confirm")
            record = Confirmed(installed.version, installed.manifest_sha256)
            write_atomically(self.folder / CONFIRMED, encode_record(record))

    def _move_in(self) -> Path:
        idle = self.idle()
        self._step("empty-idle")
        disk.empty_slot(idle)
        self._step("move-in")
        try:
            (self.incoming / ".filling").unlink(missing_ok=True)
            self.incoming.rename(idle)
            flush_folder(self.folder)
        except OSError as error:
            raise StorageError(f"{idle}: cannot move the bundle in: {error.strerror}") from error
        return idle

    def _active_name(self) -> str | None:
        try:
            name = (self.folder / ACTIVE).readlink().name
        except OSError:
            return None
        return name if name in SLOT_NAMES else None
