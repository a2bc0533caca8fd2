"""Registering is for good: what is not exactly as promised stays out, what is in never changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.delivery import manifest_of, write_bundle

from hedgerow.server.bus import Bus
from hedgerow.server.registry import ModelNotFoundError, Registry, RegistryConflictError
from hedgerow.server.registry.facts import list_facts, show_facts
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Base, Database
from hedgerow.shared import limits
from hedgerow.shared.bundle import Artefact, GateCheck, Golden, encode_manifest, sha256_hex
from hedgerow.shared.errors import ContentError, IntegrityError, StorageError

FILES = {"model.onnx": b"onnx" * 100, "model.tflite": b"lite" * 50}


class World:
    """A registry on disk, and a place to write bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder}/h.db")
        Base.metadata.create_all(self.database.engine)
        self.blobs = Blobs(folder / "blobs")
        self.bus = Bus()
        self.registry = Registry(self.database, self.blobs, self.bus)
        self._written = 0

    def bundle(self, version: int = 1, model: str = "pump", **changes: Any) -> Path:
        self._written += 1
        folder = self.folder / f"work-{self._written}"
        return write_bundle(folder, manifest_of(model, version, FILES, **changes), FILES)

    def registered(self, version: int = 1, model: str = "pump") -> None:
        self.registry.register(self.bundle(version, model))

    def promoted(self, version: int, model: str = "pump") -> None:
        with self.database.transaction() as session:
            self.registry.promote(session, model, version)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.close()


def test_a_registered_bundle_comes_back_byte_for_byte_after_its_folder_is_gone(world: World) -> None:
    folder = world.bundle()
    promised = (folder / "manifest.json").read_bytes()
    registered = world.registry.register(folder)
    for file in folder.iterdir():
        file.unlink()

    opened = world.registry.open("pump", 1)

    assert opened.manifest_bytes == promised == opened.manifest_path.read_bytes()
    assert opened.manifest_sha256 == registered.manifest_sha256 == sha256_hex(promised)
    assert {name: path.read_bytes() for name, path in opened.artefacts.items()} == FILES


def test_lineage_and_privacy_report_are_kept(world: World) -> None:
    version = world.registry.register(world.bundle())

    assert version.lineage.job_id == "job-1"
    assert version.lineage.rounds == 5
    assert version.privacy.epsilon == 3.0
    assert version.size_bytes == len(world.registry.open("pump", 1).manifest_bytes) + 600


def test_the_same_bundle_again_is_the_same_version(world: World) -> None:
    first = world.registry.register(world.bundle())

    assert world.registry.register(world.bundle()) == first
    assert len(world.registry.list_versions("pump")) == 1


def test_a_version_never_gets_other_content(world: World) -> None:
    world.registered(1)

    with pytest.raises(RegistryConflictError, match="not above 1"):
        world.registry.register(world.bundle(1, scores={"loss": 0.2}))
    assert world.registry.manifest("pump", 1).scores == {"loss": 0.1}


def test_versions_of_a_model_only_grow(world: World) -> None:
    world.registered(5)

    with pytest.raises(RegistryConflictError, match="ask for the next version"):
        world.registry.register(world.bundle(4))
    assert world.registry.next_version("pump") == 6


def test_models_count_their_versions_apart(world: World) -> None:
    assert [world.registry.next_version(name) for name in ("pump", "digits", "pump")] == [1, 1, 2]


def test_callers_at_the_same_time_never_get_the_same_version(world: World) -> None:
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.append(world.registry.next_version("pump"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == list(range(1, 9))


def test_two_registrations_of_one_version_at_the_same_time_let_one_through(world: World) -> None:
    folders = [world.bundle(1, scores={"loss": float(n)}) for n in range(4)]
    outcomes: list[str] = []

    def register(folder: Path) -> None:
        try:
            world.registry.register(folder)
            outcomes.append("in")
        except RegistryConflictError:
            outcomes.append("refused")

    threads = [threading.Thread(target=register, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["in", "refused", "refused", "refused"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_artefact_is_refused(world: World, name: str) -> None:
    folder = world.bundle()
    data = bytearray((folder / name).read_bytes())
    data[0] ^= 1
    (folder / name).write_bytes(data)

    with pytest.raises(IntegrityError, match=name):
        world.registry.register(folder)
    assert world.registry.list_models() == []


@pytest.mark.parametrize("change", [b"", b"longer than promised" * 100])
def test_an_artefact_of_another_size_is_refused(world: World, change: bytes) -> None:
    folder = world.bundle()
    (folder / "model.onnx").write_bytes(change)

    with pytest.raises(IntegrityError):
        world.registry.register(folder)


def test_a_missing_artefact_is_refused_by_name(world: World) -> None:
    folder = world.bundle()
    (folder / "model.onnx").unlink()

    with pytest.raises(StorageError, match=r"model\.onnx"):
        world.registry.register(folder)


def test_a_failed_gate_keeps_a_bundle_out_and_says_which_check(world: World) -> None:
    folder = world.bundle(gate=(GateCheck("agreement", False, 0.8, 0.95), GateCheck("size", True, 1, 2)))

    with pytest.raises(ContentError, match=r"agreement 0\.8 \(limit 0\.95\)"):
        world.registry.register(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "../x"}, "model name"),
        ({"model": "Pump"}, "model name"),
        ({"version": 0}, "versions start at 1"),
        ({"artefacts": ()}, "0 artefacts"),
        ({"artefacts": (Artefact("m.onnx", "onnxruntime", "int8", sha256_hex(b""), 1),) * 2}, "share a name"),
        (
            {"artefacts": (Artefact("manifest.json", "onnxruntime", "int8", sha256_hex(b""), 1),)},
            "manifest.json",
        ),
    ],
)
def test_a_manifest_that_devices_could_not_be_given_is_refused(
    world: World, changes: dict[str, Any], told: str
) -> None:
    manifest = msgspec.structs.replace(manifest_of("pump", 1, FILES), **changes)
    folder = write_bundle(world.folder / "odd", manifest, FILES)

    with pytest.raises(ContentError, match=told):
        world.registry.register(folder)


def test_an_artefact_name_with_a_path_never_parses(world: World) -> None:
    folder = world.bundle()
    data = (folder / "manifest.json").read_bytes().replace(b'"model.onnx"', b'"../../etc/passwd"')
    (folder / "manifest.json").write_bytes(data)

    with pytest.raises(ContentError, match="not a bundle manifest"):
        world.registry.register(folder)


def test_an_oversized_manifest_is_refused_unread(world: World) -> None:
    folder = world.bundle()
    (folder / "manifest.json").write_bytes(b" " * (limits.MAX_MANIFEST_BYTES + 1))

    with pytest.raises(IntegrityError, match="longer than"):
        world.registry.register(folder)


def test_damage_on_the_servers_disk_is_seen_when_a_bundle_is_opened(world: World) -> None:
    world.registered(1)
    path = world.registry.open("pump", 1).artefacts["model.onnx"]
    path.write_bytes(b"rot" + path.read_bytes()[3:])

    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        world.registry.open("pump", 1)


def test_news_is_published_once_a_version_is_in(world: World) -> None:
    async def listen() -> list[dict[str, Any]]:
        world.bus.attach(asyncio.get_running_loop())
        with world.bus.subscribe() as news:
            await asyncio.to_thread(world.registered, 1)
            await asyncio.to_thread(world.registered, 1)
            await asyncio.sleep(0)
            return [news.get_nowait().data for _ in range(news.qsize())]

    told = asyncio.run(listen())

    assert [(data["model"], data["version"]) for data in told] == [("pump", 1)]


def test_a_model_without_versions_is_listed_without_a_latest(world: World) -> None:
    world.registry.next_version("pump")

    (summary,) = world.registry.list_models()
    assert (summary.model, summary.latest, summary.champion, summary.versions) == ("pump", None, None, 0)


def test_references_resolve_by_alias_and_by_number(world: World) -> None:
    world.registered(1)
    world.registered(2)
    world.promoted(1)
    world.promoted(2)

    found = {
        ref: world.registry.resolve(ref).version
        for ref in ("pump", "pump@champion", "pump@previous", "pump@1")
    }
    assert found == {"pump": 2, "pump@champion": 2, "pump@previous": 1, "pump@1": 1}


@pytest.mark.parametrize(
    "reference", ["nope", "pump@3", "pump@challenger", "pump@99999999999999999999", "@", "pump@-1"]
)
def test_an_unknown_reference_says_what_there_is(world: World, reference: str) -> None:
    world.registered(1)

    with pytest.raises(ModelNotFoundError):
        world.registry.resolve(reference)


def test_a_jobs_version_is_found_again(world: World) -> None:
    world.registered(1)

    found = world.registry.find_by_job("job-1")
    assert found is not None
    assert found.version == 1
    assert world.registry.find_by_job("job-2") is None


def test_a_champion_cannot_be_yanked(world: World) -> None:
    world.registered(1)
    world.promoted(1)

    with pytest.raises(RegistryConflictError, match="roll back first"):
        world.registry.mark_yanked("pump", 1, "bad")


def test_a_yanked_version_is_never_promoted(world: World) -> None:
    world.registered(1)
    world.registry.mark_yanked("pump", 1, "trained on a broken sensor")

    with pytest.raises(RegistryConflictError, match="broken sensor"):
        world.promoted(1)
    assert world.registry.get("pump", 1).yank_reason == "trained on a broken sensor"


def test_facts_are_plain_json_without_golden_bytes(world: World) -> None:
    golden = (Golden(b"i" * 8, b"o" * 4, {"int8": 0.1}),)
    folder = world.bundle(golden=golden)
    world.registry.register(folder)
    world.promoted(1)

    shown = show_facts(world.registry, "pump")

    assert shown["manifest"]["golden"] == [{"input_bytes": 8, "output_bytes": 4, "tolerance": {"int8": 0.1}}]
    assert msgspec.json.decode(msgspec.json.encode(shown))["aliases"] == ["champion"]
    assert list_facts(world.registry)[0]["champion"] == 1
    assert list_facts(world.registry, "pump")[0]["epsilon"] == 3.0
    with pytest.raises(ModelNotFoundError, match="known: pump"):
        list_facts(world.registry, "digits")


def test_the_helper_writes_what_the_registry_hashes(world: World) -> None:
    manifest = manifest_of("pump", 1, FILES)

    assert (world.bundle() / "manifest.json").read_bytes() == encode_manifest(manifest)
