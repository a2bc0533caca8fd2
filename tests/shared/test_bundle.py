"""A manifest is one set of bytes; artefacts are exactly what it promised."""

from __future__ import annotations

import msgspec
import pytest

from hedgerow.shared import limits
from hedgerow.shared.bundle import (
    Artefact,
    Lineage,
    Manifest,
    PrivacyReport,
    check_artefact,
    decode_manifest,
    encode_manifest,
    sha256_hex,
)
from hedgerow.shared.errors import ContentError, IntegrityError
from hedgerow.shared.specs import TensorSpec


def manifest() -> Manifest:
    return Manifest(
        schema=1,
        model="pump",
        version=3,
        task="anomaly",
        input=TensorSpec("window", "float32", (60, 8), "window"),
        output=TensorSpec("y", "float32", (60, 8), "window"),
        recipe="r",
        parameters={"b": 1, "a": 2},
        artefacts=(Artefact("m.onnx", "onnxruntime", "int8", sha256_hex(b"x"), 1),),
        golden=(),
        gate=(),
        scores={},
        lineage=Lineage("j", "n", 1, "r", "h", sha256_hex(b""), "f"),
        privacy=PrivacyReport("none", "-", "-", "-", None, None, "-", "-", (), ()),
    )


def test_the_bytes_are_canonical_and_come_back() -> None:
    data = encode_manifest(manifest())

    assert decode_manifest(data) == manifest()
    assert encode_manifest(decode_manifest(data)) == data
    assert encode_manifest(msgspec.structs.replace(manifest(), parameters={"a": 2, "b": 1})) == data


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"schema": "x"}', b"\xff\xfe"])
def test_garbage_is_no_manifest(data: bytes) -> None:
    with pytest.raises(ContentError):
        decode_manifest(data)


def test_an_oversized_manifest_is_refused_before_decoding() -> None:
    with pytest.raises(ContentError, match="at most"):
        decode_manifest(b" " * (limits.MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize("data", [b"y", b"xx", b""])
def test_an_artefact_that_differs_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        check_artefact(manifest().artefacts[0], data)


def test_an_artefact_as_promised_passes() -> None:
    check_artefact(manifest().artefacts[0], b"x")


@pytest.mark.parametrize("shape", [(), (0,), (-1, 2), (1,) * 7, (1 << 13, 1 << 13)])
def test_a_tensor_spec_has_bounded_positive_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="tensor"):
        TensorSpec("w", "float32", shape, "window")
