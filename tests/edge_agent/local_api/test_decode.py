"""Bodies become one sample of a known spec, or are refused with what is wrong."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.local_api.decode import MAX_JSON_BYTES, decode_json, decode_raw
from hedgerow.shared.errors import ContentError
from hedgerow.shared.specs import TensorSpec

SPECS = {
    "window": TensorSpec("window", "float32", (2, 3), "window"),
    "image": TensorSpec("image", "uint8", (2, 2, 1), "image"),
    "text": TensorSpec("text", "int64", (3,), "tokens"),
}


def body(spec: str, data: Any) -> bytes:
    return json.dumps({"spec": spec, "data": data}).encode()


def test_lists_become_arrays_of_the_specs_type() -> None:
    _, window = decode_json(body("window", [[1, 2.5, 3], [4, 5, 6]]), SPECS)
    _, image = decode_json(body("image", [[[0], [255]], [[7], [8]]]), SPECS)
    spec, text = decode_json(body("text", [1, -2, 2**62]), SPECS)

    assert window.dtype == np.float32
    assert window.tolist() == [[1, 2.5, 3], [4, 5, 6]]
    assert image.dtype == np.uint8
    assert image.ravel().tolist() == [0, 255, 7, 8]
    assert (spec.name, text.tolist()) == ("text", [1, -2, 2**62])


@pytest.mark.parametrize(
    "data",
    [
        [], [[1, 2, 3]], [[1, 2], [3, 4]], [[1, 2, 3], [4, 5, "6"]], [[1, 2, 3], [4, 5, None]], [[1, 2, 3], [4, 5, True]],
        [[1, 2, 3], [4, 5, [6]]], [[1, 2, 3], [4, 5, 1e39]], [[1, 2, 3], [4, 5, 10**400]], [1, 2, 3, 4, 5, 6], 5, "x",
    ],
)  # fmt: skip
def test_data_that_does_not_fit_is_refused(data: Any) -> None:
    with pytest.raises(ContentError):
        decode_json(body("window", data), SPECS)


@pytest.mark.parametrize("value", [-1, 256, 1.5, 10**30])
def test_pixels_beyond_their_range_are_refused(value: float) -> None:
    with pytest.raises(ContentError):
        decode_json(body("image", [[[0], [value]], [[7], [8]]]), SPECS)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"spec": 5, "data": []}', b'{"spec": "window"}', b'{"data":' + b"[" * 50_000,
     b'{"spec":"window","data":[],"more":1}', b" " * (MAX_JSON_BYTES + 1)],
)  # fmt: skip
def test_bodies_that_are_no_request_are_refused(data: bytes) -> None:
    with pytest.raises(ContentError):
        decode_json(data, SPECS)


def test_an_unknown_spec_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        decode_json(body("nothing", [1]), SPECS)
    with pytest.raises(KeyError):
        decode_raw(b"", "nothing", SPECS)


def test_raw_bytes_are_taken_as_they_are() -> None:
    values = np.array([[1, 2, 3], [4, 5, 6.5]], "<f4")

    _, window = decode_raw(values.tobytes(), "window", SPECS)
    _, image = decode_raw(bytes([0, 1, 2, 255]), "image", SPECS)

    assert (window == values).all()
    assert image.tolist() == [[[0], [1]], [[2], [255]]]


def test_raw_bytes_of_another_size_or_not_finite_are_refused() -> None:
    with pytest.raises(ContentError, match="takes 24"):
        decode_raw(b"123", "window", SPECS)
    with pytest.raises(ContentError, match="not finite"):
        decode_raw(np.full(6, np.nan, "<f4").tobytes(), "window", SPECS)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(ContentError, KeyError):
        decode_json(data, SPECS)
    with contextlib.suppress(ContentError, KeyError):
        decode_raw(data, "window", SPECS)
