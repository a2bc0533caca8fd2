"""A manifest from anywhere: it is one, or ContentError; what it names is bounded before anybody acts on it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.shared import limits
from hedgerow.shared.bundle import (
    Artefact,
    GateCheck,
    Golden,
    Lineage,
    Manifest,
    PrivacyReport,
    ScoringRule,
    check_artefact,
    decode_manifest,
    encode_manifest,
    sha256_hex,
)
from hedgerow.shared.errors import ContentError, IntegrityError
from hedgerow.shared.specs import TensorSpec

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=12)
HASHES = st.binary(max_size=4).map(sha256_hex)
SPECS = st.builds(
    TensorSpec,
    name=TEXT,
    dtype=st.sampled_from(["float32", "uint8", "int32", "int64"]),
    shape=st.lists(st.integers(1, 8), min_size=1, max_size=limits.MAX_TENSOR_DIMS).map(tuple),
    kind=st.sampled_from(["window", "image", "tokens", "scores"]),
)
ARTEFACTS = st.builds(
    Artefact,
    file=st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,62}\Z"),
    runtime=st.sampled_from(["onnxruntime", "litert"]),
    precision=st.sampled_from(["float32", "int8"]),
    sha256=HASHES,
    size_bytes=st.integers(1, limits.MAX_ARTEFACT_BYTES),
)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
MANIFESTS = st.builds(
    Manifest,
    schema=st.just(1),
    model=TEXT,
    version=st.integers(1, 2**31),
    task=st.sampled_from(["anomaly", "classification"]),
    input=SPECS,
    output=SPECS,
    recipe=TEXT,
    parameters=st.dictionaries(TEXT, st.integers(-(2**40), 2**40) | FINITE | TEXT, max_size=3),
    artefacts=st.lists(ARTEFACTS, max_size=3).map(tuple),
    golden=st.lists(
        st.builds(Golden, st.binary(max_size=16), st.binary(max_size=16), st.dictionaries(TEXT, FINITE, max_size=2)),
        max_size=2,
    ).map(tuple),
    gate=st.lists(st.builds(GateCheck, TEXT, st.booleans(), FINITE, FINITE, TEXT), max_size=2).map(tuple),
    scores=st.dictionaries(TEXT, FINITE, max_size=3),
    lineage=st.builds(Lineage, TEXT, TEXT, st.integers(0, 10**4), TEXT, TEXT, HASHES, TEXT, TEXT, TEXT),
    privacy=st.builds(
        PrivacyReport, TEXT, TEXT, TEXT, TEXT, st.none() | FINITE, st.none() | FINITE, TEXT, TEXT, TEXTS, TEXTS
    ),
    scoring=st.none() | st.builds(ScoringRule, TEXT, st.integers(1, 9), st.dictionaries(TEXT, FINITE, max_size=2)),
    labels=TEXTS,
    channels=TEXTS,
)  # fmt: skip


@given(MANIFESTS)
def test_any_manifest_comes_back_and_its_bytes_are_one_set(manifest: Manifest) -> None:
    data = encode_manifest(manifest)

    assert decode_manifest(data) == manifest
    assert encode_manifest(decode_manifest(data)) == data


@given(MANIFESTS)
def test_keys_are_sorted_at_every_depth(manifest: Manifest) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert list(value) == sorted(value)
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    check(json.loads(encode_manifest(manifest)))


def plain() -> dict[str, Any]:
    manifest = Manifest(
        schema=1, model="pump", version=3, task="anomaly", input=TensorSpec("x", "float32", (4, 2), "window"),
        output=TensorSpec("y", "float32", (4, 2), "window"), recipe="r", parameters={},
        artefacts=(Artefact("m.onnx", "onnxruntime", "int8", sha256_hex(b"x"), 1),), golden=(), gate=(), scores={},
        lineage=Lineage("j", "n", 1, "r", "h", sha256_hex(b""), "f"),
        privacy=PrivacyReport("none", "-", "-", "-", None, None, "-", "-", (), ()),
    )  # fmt: skip
    read: dict[str, Any] = json.loads(encode_manifest(manifest))
    return read


def changed(path: str, value: Any) -> bytes:
    """Return the plain manifest's bytes with one value in another's place; a path like ``artefacts.0.file``."""
    made = plain()
    *parents, last = path.split(".")
    inner: Any = made
    for key in parents:
        inner = inner[int(key)] if key.isdigit() else inner[key]
    inner[last] = value
    return json.dumps(made).encode()


def test_the_plain_manifest_is_one() -> None:
    assert decode_manifest(changed("version", 4)).version == 4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("artefacts.0.file", "../../etc/passwd"),
        ("artefacts.0.file", "a/b"),
        ("artefacts.0.file", ".hidden"),
        ("artefacts.0.file", ""),
        ("artefacts.0.file", "a" * 64),
        ("artefacts.0.file", "m.onnx\n"),
        ("artefacts.0.file", "m.onnx\u0000"),
        ("artefacts.0.sha256", "0" * 63),
        ("artefacts.0.sha256", "0" * 64 + "\n"),
        ("artefacts.0.sha256", "A" * 64),
        ("artefacts.0.size_bytes", 0),
        ("artefacts.0.size_bytes", -1),
        ("artefacts.0.size_bytes", limits.MAX_ARTEFACT_BYTES + 1),
        ("artefacts.0.size_bytes", 1.5),
        ("artefacts.0.runtime", "python"),
        ("artefacts.0.precision", "int4"),
        ("lineage.model_sha256", "g" * 64),
        ("task", "detection"),
        ("version", "3"),
        ("version", None),
        ("input.shape", []),
        ("input.shape", [0]),
        ("input.shape", [1, 1, 1, 1, 1, 1, 1]),
        ("input.shape", [10**400]),
        ("input.shape", [limits.MAX_TENSOR_ELEMENTS, 2]),
        ("input.dtype", "object"),
        ("input.kind", "secret"),
        ("input.more", 1),
        ("golden", [{"input": "not base64!", "output": "", "tolerance": {}}]),
        ("scores", {"a": "1"}),
        ("scores", {"a": None}),
        ("privacy", None),
        ("parameters", []),
    ],
)
def test_a_value_that_would_lead_astray_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ContentError, match="not a bundle manifest"):
        decode_manifest(changed(path, value))


def test_fields_of_a_newer_release_are_passed_over() -> None:
    assert decode_manifest(changed("of_a_newer_release", [1])) == decode_manifest(
        json.dumps(plain()).encode()
    )


@pytest.mark.parametrize(
    "data",
    [
        b'{"schema": 1, "model": "\xff"}',
        b'{"schema": 1, "model": "\\ud800"}',
        b'{"schema": 1, "parameters": ' + b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"schema": ' + b"9" * 100_000 + b"}",
        b"null",
        b"\x00",
    ],
    ids=["bytes", "surrogate", "deep table", "deep list", "digits", "null", "nul"],
)
def test_what_breaks_a_decoder_is_content_that_is_refused(data: bytes) -> None:
    with pytest.raises(ContentError, match="not a bundle manifest"):
        decode_manifest(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_content_error(data: bytes) -> None:
    with contextlib.suppress(ContentError):
        assert isinstance(decode_manifest(data), Manifest)


@given(st.data())
def test_a_manifest_cut_off_anywhere_is_none(data: st.DataObject) -> None:
    whole = json.dumps(plain()).encode()
    cut = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(ContentError):
        decode_manifest(whole[:cut])


@given(st.binary(min_size=1, max_size=40), st.data())
def test_an_artefact_with_any_one_bit_turned_is_refused(content: bytes, data: st.DataObject) -> None:
    artefact = Artefact("m.onnx", "onnxruntime", "int8", sha256_hex(content), len(content))
    at, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    turned = bytearray(content)
    turned[at] ^= 1 << bit

    check_artefact(artefact, content)
    with pytest.raises(IntegrityError, match=r"artefact m\.onnx"):
        check_artefact(artefact, bytes(turned))


def test_a_right_hash_with_a_wrong_size_is_refused_too() -> None:
    artefact = Artefact("m.onnx", "onnxruntime", "int8", sha256_hex(b"xy"), 3)

    with pytest.raises(IntegrityError):
        check_artefact(artefact, b"xy")


def test_a_hash_is_that_of_the_standard_whatever_holds_the_bytes() -> None:
    """FIPS 180-2, appendix B.1."""
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    assert sha256_hex(b"abc") == sha256_hex(memoryview(b"xabcx")[1:4]) == wanted


def test_a_manifest_at_the_bound_is_read_and_one_byte_over_is_not() -> None:
    data = json.dumps(plain()).encode().ljust(limits.MAX_MANIFEST_BYTES)

    assert decode_manifest(data).model == "pump"
    with pytest.raises(ContentError, match=f"manifest of {len(data) + 1} bytes"):
        decode_manifest(data + b" ")


def test_structs_of_a_manifest_cannot_be_changed_in_place() -> None:
    manifest = decode_manifest(json.dumps(plain()).encode())

    with pytest.raises(AttributeError):
        manifest.version = 9  # type: ignore[misc]
    assert msgspec.structs.replace(manifest, version=9).version == 9
