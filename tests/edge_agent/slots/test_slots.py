"""Two slots and a switch: what serves is complete and what was installed, whatever happened before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hedgerow.edge_agent.slots import Confirmed, Slots
from hedgerow.edge_agent.slots.disk import RECORD, empty_slot, read_record
from hedgerow.edge_agent.slots.record import MAX_RECORD_BYTES, Installed, InstalledFile, decode_record
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import ConfigError, ContentError, IntegrityError, StorageError
from hedgerow.shared.files import write_atomically


def content(version: int) -> dict[str, bytes]:
    return {"manifest.json": b"manifest %d" % version, "model.onnx": b"model %d " % version * 2000}


def sha_of(version: int) -> str:
    return sha256_hex(content(version)["manifest.json"])


def fill(slots: Slots, version: int) -> None:
    """Do what the updater does: fill incoming and seal it."""
    folder = slots.prepare(sha_of(version))
    files = content(version)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    described = {name: InstalledFile(len(data), sha256_hex(data)) for name, data in files.items()}
    slots.seal(version, sha_of(version), described)


def install(slots: Slots, version: int) -> Path:
    fill(slots, version)
    return slots.activate(sha_of(version))


def serving(slots: Slots) -> int | None:
    choice = slots.check()
    return None if choice.installed is None else choice.installed.version


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    return Slots(tmp_path, "pump")


def test_before_the_first_bundle_nothing_serves_and_it_says_why(slots: Slots) -> None:
    choice = slots.check()

    assert (choice.folder, choice.source) == (None, "none")
    assert "no bundle was activated" in choice.reason
    assert slots.active() is None
    assert slots.previous() is None


def test_a_bundle_that_is_filled_but_not_activated_does_not_serve(slots: Slots) -> None:
    fill(slots, 1)

    assert slots.check().folder is None


def test_an_activated_bundle_serves_from_a_slot(slots: Slots) -> None:
    folder = install(slots, 1)

    assert folder.name in ("a", "b")
    assert slots.active() == folder
    assert {name: (folder / name).read_bytes() for name in content(1)} == content(1)
    assert not slots.incoming.exists()
    assert slots.check().source == "champion"


def test_the_old_bundle_stays_as_the_previous_one(slots: Slots) -> None:
    install(slots, 1)
    install(slots, 2)
    previous = slots.previous()

    assert serving(slots) == 2
    assert previous is not None
    assert previous.version == 1


def test_the_previous_one_is_kept_while_the_next_is_filled(slots: Slots) -> None:
    install(slots, 1)
    install(slots, 2)
    fill(slots, 3)
    previous = slots.previous()

    assert previous is not None
    assert previous.version == 1


def test_never_more_than_three_versions_are_on_disk(slots: Slots) -> None:
    for version in range(1, 7):
        install(slots, version)
        fill(slots, version + 100)
        assert len(list(slots.folder.rglob("model.onnx"))) <= 3


def test_going_back_needs_nothing_but_the_slots(slots: Slots) -> None:
    install(slots, 1)
    install(slots, 2)
    slots.rollback()
    assert serving(slots) == 1

    slots.rollback()
    assert serving(slots) == 2


def test_without_a_previous_bundle_there_is_no_going_back(slots: Slots) -> None:
    install(slots, 1)

    with pytest.raises(IntegrityError, match="no intact previous"):
        slots.rollback()
    assert serving(slots) == 1


def test_activating_what_serves_changes_nothing(slots: Slots) -> None:
    install(slots, 1)
    install(slots, 2)

    slots.activate(sha_of(2))
    assert serving(slots) == 2
    assert slots.previous() is not None


def test_an_unknown_bundle_is_not_activated(slots: Slots) -> None:
    install(slots, 1)

    with pytest.raises(IntegrityError, match="no slot holds"):
        slots.activate(sha_of(9))
    assert serving(slots) == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def become_a_file(slot: Path) -> None:
    shutil.rmtree(slot)
    slot.write_bytes(b"x")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit flipped in the model": lambda slot: flip(slot / "model.onnx"),
    "a bit flipped in the manifest": lambda slot: flip(slot / "manifest.json"),
    "the model cut short": lambda slot: os.truncate(slot / "model.onnx", 10),
    "the model gone": lambda slot: (slot / "model.onnx").unlink(),
    "the record gone": lambda slot: (slot / RECORD).unlink(),
    "the record garbage": lambda slot: (slot / RECORD).write_bytes(b"\x00garbage"),
    "the record huge": lambda slot: (slot / RECORD).write_bytes(b" " * (MAX_RECORD_BYTES + 1)),
    "the slot gone": empty_slot,
    "the slot a file": become_a_file,
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_a_damaged_slot_gives_way_to_the_previous_one_with_a_reason(slots: Slots, damage: str) -> None:
    install(slots, 1)
    DAMAGE[damage](install(slots, 2))
    choice = slots.check()

    assert choice.installed is not None
    assert (choice.installed.version, choice.source) == (1, "previous")
    assert choice.reason
    assert slots.active() == choice.folder
    assert slots.check().source == "champion"


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_with_both_slots_damaged_the_baseline_serves_with_both_reasons(slots: Slots, damage: str) -> None:
    first = install(slots, 1)
    second = install(slots, 2)
    DAMAGE[damage](first)
    DAMAGE[damage](second)
    choice = slots.check()

    assert choice.folder is None
    assert f"slot {first.name}" in choice.reason
    assert f"slot {second.name}" in choice.reason


def test_a_damaged_device_takes_the_next_bundle_again(slots: Slots) -> None:
    first = install(slots, 1)
    flip(first / "model.onnx")
    install(slots, 1)

    assert serving(slots) == 1
    assert slots.active() != first


@pytest.mark.parametrize("target", ["../../elsewhere", "c", "incoming", "/etc"])
def test_a_pointer_to_anything_but_a_slot_is_no_pointer(slots: Slots, target: str) -> None:
    install(slots, 1)
    (slots.folder / "active").unlink()
    (slots.folder / "active").symlink_to(target)

    assert slots.check().folder is None


def test_a_record_that_names_a_file_outside_its_slot_is_refused(slots: Slots, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    folder = slots.prepare(sha_of(1))
    stolen = {"../../secret": InstalledFile(1, sha256_hex(b"s"))}

    with pytest.raises(IntegrityError, match="outside the slot"):
        slots.seal(1, sha_of(1), stolen)
    assert not (folder / RECORD).exists()


def test_nothing_is_sealed_that_is_not_what_was_promised(slots: Slots) -> None:
    folder = slots.prepare(sha_of(1))
    (folder / "model.onnx").write_bytes(b"other")

    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        slots.seal(1, sha_of(1), {"model.onnx": InstalledFile(5, sha256_hex(b"wants"))})


def test_a_bundle_damaged_between_sealing_and_activation_is_not_switched_to(slots: Slots) -> None:
    install(slots, 1)
    fill(slots, 2)
    flip(slots.incoming / "model.onnx")

    with pytest.raises(IntegrityError):
        slots.activate(sha_of(2))
    assert serving(slots) == 1


def test_filling_goes_on_where_it_was_for_the_same_bundle_only(slots: Slots) -> None:
    (slots.prepare(sha_of(1)) / "model.onnx.part").write_bytes(b"half")
    assert (slots.prepare(sha_of(1)) / "model.onnx.part").read_bytes() == b"half"

    assert not (slots.prepare(sha_of(2)) / "model.onnx.part").exists()


def test_a_filling_mark_that_is_garbage_starts_over(slots: Slots) -> None:
    folder = slots.prepare(sha_of(1))
    (folder / "model.onnx.part").write_bytes(b"half")
    (folder / ".filling").write_bytes(b"\xff\xfe")

    assert not (slots.prepare(sha_of(1)) / "model.onnx.part").exists()


def test_what_a_killed_process_left_half_written_is_swept_away(slots: Slots) -> None:
    install(slots, 1)
    (slots.folder / ".active.0123abcd").symlink_to("b")
    (slots.folder / ".confirmed.json.0123abcd").write_bytes(b"{")
    slots.check()

    assert sorted(path.name for path in slots.folder.iterdir()) == ["a", "active"]


def test_the_confirmed_version_only_rises(slots: Slots) -> None:
    assert slots.confirmed() is None
    for version in (1, 3, 2):
        install(slots, version)
        installed = slots.check().installed
        assert installed is not None
        slots.confirm(installed)

    assert slots.confirmed() == Confirmed(3, sha_of(3))


def test_a_damaged_confirmed_record_falls_back_to_what_the_slots_prove(slots: Slots) -> None:
    install(slots, 4)
    install(slots, 5)
    (slots.folder / "confirmed.json").write_bytes(b"{")

    assert slots.confirmed() == Confirmed(5, sha_of(5))


@pytest.mark.parametrize("model", ["", "../x", "Pump", "a/b", "x" * 64, "pump\n"])
def test_a_model_name_that_could_leave_the_folder_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(ConfigError):
        Slots(tmp_path, model)


def test_models_with_slots_are_listed(tmp_path: Path) -> None:
    assert Slots.models(tmp_path / "none") == []
    install(Slots(tmp_path, "pump"), 1)
    install(Slots(tmp_path, "digits"), 1)
    (tmp_path / "NOT-A-MODEL").mkdir()

    assert Slots.models(tmp_path) == ["digits", "pump"]


def test_a_disk_that_refuses_keeps_the_old_record(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    install(slots, 1)
    real = os.fsync

    def full(descriptor: int) -> None:
        real(descriptor)
        raise OSError(28, "No space left on device")

    fill(slots, 2)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_atomically(slots.folder / "confirmed.json", b"x")
    with pytest.raises(StorageError):
        slots.activate(sha_of(2))
    monkeypatch.undo()

    assert serving(slots) == 1
    assert [path.name for path in slots.folder.iterdir() if path.name.startswith(".c")] == []


def test_records_of_another_kind_or_size_are_refused(tmp_path: Path) -> None:
    assert read_record(tmp_path / "none", Installed) is None
    with pytest.raises(ContentError, match="more than"):
        decode_record(b" " * (MAX_RECORD_BYTES + 1), Installed)
    with pytest.raises(ContentError, match="Installed"):
        decode_record(b'{"model": 3}', Installed)


STEPS = ["empty-incoming", "seal", "empty-idle", "move-in", "switch", "done"]
CHILD = """
import os, signal, sys
from pathlib import Path
from tests.edge_agent.slots.test_slots import Slots, install, serving

def step(name):
    if name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

install(Slots(Path(sys.argv[1]), "pump", step=step), int(sys.argv[2]))
"""
FOR_EVER = """
import sys
from pathlib import Path
from tests.edge_agent.slots.test_slots import Slots, install

slots = Slots(Path(sys.argv[1]), "pump")
print("ready", flush=True)
version = int(sys.argv[2])
while True:
    version += 1
    install(slots, version)
"""
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_kill_9_at_any_step_leaves_what_served_or_the_new_one(tmp_path: Path, step: str, before: int) -> None:
    slots = Slots(tmp_path, "pump")
    for version in range(1, before + 1):
        install(slots, version)
    new = before + 1
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(new), step], cwd=ROOT, check=False
    )

    assert child.returncode == -signal.SIGKILL
    assert serving(slots) == (new if step == "done" else before or None)
    install(slots, new)
    assert serving(slots) == new


def test_kill_9_at_any_time_leaves_exactly_one_good_slot_serving(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "pump")
    install(slots, 1)
    last = 1
    for pause_s in (0.013, 0.029, 0.047, 0.083):
        child = subprocess.Popen(
            [sys.executable, "-c", FOR_EVER, str(tmp_path), str(last)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(pause_s)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        choice = slots.check()

        assert choice.source == "champion"
        assert choice.installed is not None
        assert choice.installed.version >= last
        last = choice.installed.version
