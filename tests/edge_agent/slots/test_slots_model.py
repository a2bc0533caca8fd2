"""Any order of installing, going back, damage and crashes, against a model of what must then serve."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hedgerow.edge_agent.slots import Confirmed, Slots
from hedgerow.edge_agent.slots.record import InstalledFile
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import IntegrityError

STEPS = ["empty-incoming", "seal", "empty-idle", "move-in", "switch", "done", "fall-back", "confirm"]


class Power(BaseException):
    """The power went away: nothing catches it, nothing is cleaned up."""


def content(version: int) -> bytes:
    return b"model %d" % version * 20


class SlotsMachine(RuleBasedStateMachine):
    """Installs ever newer versions on one device whose power fails now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.fail_at: str | None = None
        self.slots = Slots(self.root, "pump", step=self._step)
        self.version = 0
        self.served: int | None = None
        self.confirmed = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def _step(self, name: str) -> None:
        if name == self.fail_at:
            raise Power

    def _now(self) -> int | None:
        installed = self.slots.check().installed
        return None if installed is None else installed.version

    def _install(self, version: int) -> None:
        data = content(version)
        folder = self.slots.prepare(sha256_hex(data))
        (folder / "m").write_bytes(data)
        self.slots.seal(version, sha256_hex(data), {"m": InstalledFile(len(data), sha256_hex(data))})
        self.slots.activate(sha256_hex(data))

    @rule()
    def install(self) -> None:
        self.version += 1
        self._install(self.version)
        self.served = self.version

    @rule(step=st.sampled_from(STEPS))
    def install_while_the_power_fails(self, step: str) -> None:
        self.version += 1
        self.fail_at = step
        with contextlib.suppress(Power):
            self._install(self.version)
        self.fail_at = None
        now = self._now()
        # Either the switch had happened, or nothing that is seen from outside had; but where nothing was fit to
        # serve, a bundle that had passed every check and lay in its slot takes over.
        taken_over = step == "switch" and self.served is None and self.slots.active() is not None
        done = step in ("done", "fall-back", "confirm") or taken_over
        assert now == (self.version if done else self.served)
        self.served = now

    @rule()
    def go_back(self) -> None:
        previous = self.slots.previous()
        if previous is None:
            try:
                self.slots.rollback()
            except IntegrityError:
                return
            raise AssertionError("went back to nothing")
        self.slots.rollback()
        self.served = previous.version

    @precondition(lambda self: self.served is not None)
    @rule()
    def confirm(self) -> None:
        installed = self.slots.check().installed
        assert installed is not None
        self.slots.confirm(installed)
        self.confirmed = max(self.confirmed, installed.version)

    @precondition(lambda self: self.served is not None)
    @rule()
    def the_disk_damages_what_serves(self) -> None:
        active = self.slots.active()
        assert active is not None
        (active / "m").write_bytes(b"rot")
        previous = self.slots.previous()
        choice = self.slots.check()
        self.served = None if choice.installed is None else choice.installed.version
        assert self.served == (None if previous is None else previous.version)
        assert choice.reason

    @invariant()
    def what_serves_is_whole_and_the_expected_one(self) -> None:
        choice = self.slots.check()
        if self.served is None:
            assert choice.folder is None
        else:
            assert choice.folder is not None
            assert (choice.folder / "m").read_bytes() == content(self.served)

    @invariant()
    def the_confirmed_version_never_falls(self) -> None:
        known = self.slots.confirmed()
        expected = Confirmed(self.confirmed, sha256_hex(content(self.confirmed))) if self.confirmed else None
        assert known == expected

    @invariant()
    def at_most_three_bundles_are_on_disk(self) -> None:
        assert len(list(self.root.rglob("m"))) <= 3


SlotsMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestSlots = SlotsMachine.TestCase
