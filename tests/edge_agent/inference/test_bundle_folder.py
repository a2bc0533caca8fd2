from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from tests.support.agent_profile import profile
from tests.support.bundles import rewrite, write_bundle

from hedgerow.edge_agent.inference.bundle_folder import read_bundle
from hedgerow.edge_agent.inference.loader import load, preferred
from hedgerow.shared import limits
from hedgerow.shared.bundle import Manifest, decode_manifest, sha256_hex
from hedgerow.shared.errors import ContentError, IntegrityError, StorageError


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    write_bundle(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def manifest_in(folder: Path) -> Manifest:
    return decode_manifest((folder / "manifest.json").read_bytes())


def test_a_bundles_identity_is_the_hash_of_its_manifest(folder: Path) -> None:
    assert read_bundle(folder).identity == sha256_hex((folder / "manifest.json").read_bytes())


def test_a_missing_manifest_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"manifest\.json: cannot be read"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff" * 100])
def test_a_manifest_that_is_none_is_refused(folder: Path, data: bytes) -> None:
    (folder / "manifest.json").write_bytes(data)

    with pytest.raises(ContentError, match="not a bundle manifest"):
        read_bundle(folder)


def test_an_over_size_manifest_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b" " * (limits.MAX_MANIFEST_BYTES + 1))

    with pytest.raises(ContentError, match="at most"):
        read_bundle(folder)


def test_a_newer_schema_asks_for_a_newer_agent(folder: Path) -> None:
    rewrite(folder, msgspec.structs.replace(manifest_in(folder), schema=2))

    with pytest.raises(ContentError, match="update the agent"):
        read_bundle(folder)


@pytest.mark.parametrize("damage", ["bit", "longer", "shorter", "gone"])
def test_an_artefact_that_is_not_what_was_promised_is_not_loaded(folder: Path, damage: str) -> None:
    path = folder / "model.int8.onnx"
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= damage == "bit"
        path.write_bytes({"bit": data, "longer": data + b"x", "shorter": data[:-1]}[damage])

    with pytest.raises(IntegrityError, match=r"model\.int8\.onnx"):
        load(read_bundle(folder), profile())


@pytest.mark.parametrize(
    ("runtimes", "precision", "expected"),
    [
        (("onnxruntime", "litert"), "int8", ["model.int8.onnx", "model.float32.onnx", "model.int8.tflite", "model.float32.tflite"]),
        (("litert", "onnxruntime"), "float32", ["model.float32.tflite", "model.int8.tflite", "model.float32.onnx", "model.int8.onnx"]),
        (("litert",), "int8", ["model.int8.tflite", "model.float32.tflite"]),
    ],
)  # fmt: skip
def test_the_profile_orders_the_artefacts_runtime_first(
    folder: Path, runtimes: tuple[str, ...], precision: str, expected: list[str]
) -> None:
    found = preferred(manifest_in(folder), profile(runtimes, precision))  # type: ignore[arg-type]

    assert [artefact.file for artefact in found] == expected


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_the_preferred_artefact_is_loaded(folder: Path, runtime: str, precision: str) -> None:
    loaded = load(read_bundle(folder), profile((runtime,), precision))  # type: ignore[arg-type]

    assert (loaded.artefact.runtime, loaded.artefact.precision) == (runtime, precision)
    assert (loaded.runtime.name, loaded.runtime.precision) == (runtime, precision)
    assert loaded.skipped == ()


def test_an_artefact_that_fails_its_golden_samples_here_gives_way_to_the_next_and_says_so(
    folder: Path,
) -> None:
    manifest = manifest_in(folder)
    strict = tuple(
        msgspec.structs.replace(g, tolerance={"int8": 1e-9, "float32": 0.1}) for g in manifest.golden
    )
    rewrite(folder, msgspec.structs.replace(manifest, golden=strict))

    loaded = load(read_bundle(folder), profile())

    assert loaded.artefact.file == "model.float32.onnx"
    assert len(loaded.skipped) == 1
    assert loaded.skipped[0].startswith("model.int8.onnx: golden sample 0")


def test_a_bundle_that_nothing_here_can_run_is_refused_with_every_reason(folder: Path) -> None:
    manifest = manifest_in(folder)
    off = tuple(msgspec.structs.replace(g, output=b"\0\0\x80\x7f" * 24) for g in manifest.golden)
    rewrite(folder, msgspec.structs.replace(manifest, golden=off))

    with pytest.raises(ContentError) as caught:
        load(read_bundle(folder), profile())
    for artefact in manifest.artefacts:
        assert artefact.file in str(caught.value)


def test_a_bundle_without_an_artefact_for_this_device_is_refused(folder: Path) -> None:
    manifest = manifest_in(folder)
    only_onnx = tuple(a for a in manifest.artefacts if a.runtime == "onnxruntime")
    rewrite(folder, msgspec.structs.replace(manifest, artefacts=only_onnx))

    with pytest.raises(ContentError, match="holds nothing for litert"):
        load(read_bundle(folder), profile(("litert",)))
