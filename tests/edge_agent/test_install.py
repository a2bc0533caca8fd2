"""Bringing bundles into service: real engine, slots and bundles; only what the network would say is scripted."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.agent_profile import WINDOW, profile
from tests.support.bundles import WindowNet, normal_windows, rewrite, write_bundle

from hedgerow.edge_agent.inference.engine import Engine
from hedgerow.edge_agent.install import Installer
from hedgerow.edge_agent.slots.record import InstalledFile
from hedgerow.edge_agent.slots.slots import Slots
from hedgerow.edge_agent.updater.result import Reason, UpdateResult
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import StorageError
from hedgerow.shared.messages import BundleTarget

WAIT_S = 60.0
KINDS = [("onnxruntime", "float32")]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 3 of one model; version 9 promises golden answers that its model does not give."""
    folder = tmp_path_factory.mktemp("bundles")
    for version in (1, 2, 3):
        write_bundle(folder / str(version), WindowNet(version), kinds=KINDS, version=version)
    write_bundle(folder / "other", WindowNet(5), kinds=KINDS, version=9)
    bad = write_bundle(folder / "9", WindowNet(9), kinds=KINDS, version=9)
    other = write_bundle(
        folder / "golden", WindowNet(5), kinds=KINDS, golden=normal_windows(2, 7, 30.0), tolerance=1e-6
    )
    rewrite(
        folder / "9",
        type(bad)(**{**{f: getattr(bad, f) for f in bad.__struct_fields__}, "golden": other.golden}),
    )
    return folder


def target(bundles: Path, version: int, *, rollback_ok: bool = False) -> BundleTarget:
    digest = sha256_hex((bundles / str(version) / "manifest.json").read_bytes())
    return BundleTarget("pump", version, digest, rollback_ok)


def stage(root: Path, bundles: Path, wanted: BundleTarget) -> None:
    slots = Slots(root, wanted.model)
    if slots.find(wanted.manifest_sha256):
        return
    incoming, files = slots.prepare(wanted.manifest_sha256), {}
    for path in (bundles / str(wanted.version)).iterdir():
        shutil.copyfile(path, incoming / path.name)
        files[path.name] = InstalledFile(path.stat().st_size, sha256_hex(path.read_bytes()))
    slots.seal(wanted.version, wanted.manifest_sha256, files)


class Rig:
    """One device's installer. ``says`` scripts what the updater comes to; without it, it stages the bundle."""

    def __init__(self, folder: Path, bundles: Path) -> None:
        self.root, self.bundles = folder / "slots", bundles
        self.says: list[Reason | Callable[[], Any]] = []
        self.asked: list[BundleTarget] = []
        self.notices: list[tuple[str, str]] = []
        self.changed = threading.Condition()
        self.engine = Engine(
            profile(("onnxruntime",), "float32"), folder / "state", lambda *_: normal_windows(40)
        )
        self.installer = Installer(
            self.root, self.engine, self, on_change=self._change, on_notice=self._notice
        )

    def run(self, wanted: BundleTarget) -> UpdateResult:
        self.asked.append(wanted)
        said = self.says.pop(0) if self.says else "staged"
        if callable(said):
            said = said()
        if said == "staged":
            stage(self.root, self.bundles, wanted)
        return UpdateResult(said, wanted.model, wanted.version, wanted.manifest_sha256, f"scripted {said}")

    def _change(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _notice(self, code: str, text: str) -> None:
        self.notices.append((code, text))
        self._change()

    def until(self, done: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(done, WAIT_S), (self.installer.reports(), self.notices)

    def serving(self) -> list[int]:
        return [report.version for report in self.engine.reports()]

    def states(self) -> list[tuple[int, str]]:
        return [(report.version, report.state) for report in self.installer.reports()]

    def answers(self) -> str:
        return self.engine.predict("window", np.zeros(WINDOW.shape, np.float32)).reason

    def close(self) -> None:
        self.installer.stop(WAIT_S)
        self.engine.close()


@pytest.fixture
def rigs(tmp_path: Path, bundles: Path) -> Iterator[Callable[[], Rig]]:
    made: list[Rig] = []

    def make() -> Rig:
        made.append(Rig(tmp_path, bundles))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def installed(rig: Rig, *versions: int) -> None:
    for version in versions:
        wanted = target(rig.bundles, version)
        stage(rig.root, rig.bundles, wanted)
        Slots(rig.root, "pump").activate(wanted.manifest_sha256)


def test_wanted_bundle_is_fetched_switched_to_and_confirmed(rigs: Callable[[], Rig]) -> None:
    rig = rigs()
    rig.installer.start()
    assert rig.answers() in ("baseline", "unknown")
    rig.installer.want((target(rig.bundles, 1),))
    rig.until(lambda: rig.states() == [(1, "serving")])

    confirmed = Slots(rig.root, "pump").confirmed()
    assert confirmed is not None
    assert confirmed.version == 1
    assert (rig.answers(), rig.notices) == ("champion", [])

    rig.installer.want((target(rig.bundles, 2),))
    rig.until(lambda: rig.states() == [(2, "serving")])
    assert len(rig.asked) == 2


def test_what_was_installed_serves_at_start_without_the_updater(rigs: Callable[[], Rig]) -> None:
    first = rigs()
    installed(first, 1, 2)
    first.installer.start()
    assert (first.serving(), first.answers(), first.asked) == ([2], "champion", [])


def test_damaged_slot_at_start_gives_way_to_the_one_before_it(rigs: Callable[[], Rig]) -> None:
    rig = rigs()
    installed(rig, 1, 2)
    active = Slots(rig.root, "pump").active()
    assert active is not None
    next(active.glob("*.onnx")).write_bytes(b"damaged")
    rig.installer.start()

    assert rig.serving() == [1]
    assert [code for code, _ in rig.notices] == ["slot-damaged"]


def test_slot_that_cannot_be_switched_on_a_full_disk_still_serves(
    rigs: Callable[[], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    import hedgerow.edge_agent.slots.slots as module

    def full(*_: object) -> None:
        raise StorageError("no space left on device")

    rig = rigs()
    installed(rig, 1, 2)
    active = Slots(rig.root, "pump").active()
    assert active is not None
    next(active.glob("*.onnx")).write_bytes(b"damaged")
    monkeypatch.setattr(module, "point_to", full)
    rig.installer.start()

    assert rig.serving() == [1]
    assert "no space" in rig.notices[0][1]


def test_nothing_intact_leaves_the_baseline_and_says_so(rigs: Callable[[], Rig]) -> None:
    rig = rigs()
    installed(rig, 1)
    for file in rig.root.rglob("*.onnx"):
        file.write_bytes(b"damaged")
    rig.installer.start()

    assert (rig.serving(), rig.answers()) == ([], "baseline")
    assert rig.notices[0][0] == "slot-damaged"


def test_intact_bundle_that_the_engine_refuses_gives_way_to_the_one_before(rigs: Callable[[], Rig]) -> None:
    rig = rigs()
    installed(rig, 1, 9)
    rig.installer.start()
    assert rig.serving() == [1]
    assert [code for code, _ in rig.notices] == ["bundle-unfit"]


def test_bundle_that_fails_its_golden_samples_never_serves_and_is_not_asked_for_again(
    rigs: Callable[[], Rig],
) -> None:
    rig = rigs()
    installed(rig, 1)
    rig.installer.start()
    rig.installer.want((target(rig.bundles, 9),))
    rig.until(lambda: bool(rig.notices))

    assert rig.states() == [(1, "serving"), (9, "failed")]
    assert rig.answers() == "champion"
    assert rig.notices[0][0] == "bundle-refused"
    rig.installer.want((target(rig.bundles, 9),))
    rig.installer.want((target(rig.bundles, 2),))
    rig.until(lambda: rig.serving() == [2])
    assert [asked.version for asked in rig.asked] == [9, 2]


def test_refused_update_is_tried_again_only_when_wanted_anew(rigs: Callable[[], Rig]) -> None:
    rig = rigs()
    rig.says = ["untrusted"]
    rig.installer.start()
    wanted = target(rig.bundles, 1)
    rig.installer.want((wanted,))
    rig.until(lambda: rig.states() == [(1, "failed")] and bool(rig.notices))
    rig.installer.want(())
    rig.installer.want((wanted,))
    rig.until(lambda: rig.states() == [(1, "serving")])


@pytest.mark.parametrize("reason", ["unreachable", "disk-full", "clock-behind", "expired", "busy"])
def test_what_may_pass_is_tried_again(rigs: Callable[[], Rig], reason: Reason) -> None:
    rig = rigs()
    rig.says = [reason]
    rig.installer.start()
    rig.installer.want((target(rig.bundles, 1),))
    rig.until(lambda: rig.states() == [(1, "serving")])
    assert (len(rig.asked), rig.notices) == (2, [])


def test_fault_of_the_updater_itself_ends_no_later_update(rigs: Callable[[], Rig]) -> None:
    def broken() -> None:
        raise OSError("cannot fork")

    rig = rigs()
    rig.says = [broken]
    rig.installer.start()
    rig.installer.want((target(rig.bundles, 1),))
    rig.until(lambda: rig.states() == [(1, "serving")])
    assert rig.notices[0][0] == "install-failed"


def test_full_disk_while_switching_is_tried_again_and_what_serves_stays(
    rigs: Callable[[], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = rigs()
    installed(rig, 1)
    rig.installer.start()
    real, times = Slots.activate, [1]

    def activate(slots: Slots, digest: str) -> Path:
        if times.pop() if times else 0:
            assert rig.serving() == [1]
            raise StorageError("no space left on device")
        return real(slots, digest)

    monkeypatch.setattr(Slots, "activate", activate)
    rig.installer.want((target(rig.bundles, 2),))
    rig.until(lambda: rig.serving() == [2])
    assert (len(rig.asked), rig.notices) == (2, [])


def test_rollback_to_the_previous_version_leaves_the_floor_where_it_is(rigs: Callable[[], Rig]) -> None:
    rig = rigs()
    rig.installer.start()
    for version in (1, 2):
        rig.installer.want((target(rig.bundles, version),))
        rig.until(lambda v=version: rig.serving() == [v])  # type: ignore[misc]
    rig.installer.want((target(rig.bundles, 1, rollback_ok=True),))
    rig.until(lambda: rig.serving() == [1])

    rig.until(lambda: rig.states() == [(1, "serving")])
    confirmed = Slots(rig.root, "pump").confirmed()
    assert confirmed is not None
    assert confirmed.version == 2
