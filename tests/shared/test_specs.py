"""A tensor spec says exactly which arrays are of it, and how large one is."""

from __future__ import annotations

import math
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError
from hedgerow.shared.specs import DType, Kind, TensorSpec

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=limits.MAX_TENSOR_DIMS).map(tuple)
DTYPES = st.sampled_from(get_args(DType))


@given(SHAPES, DTYPES, st.integers(0, 3))
def test_size_is_that_of_a_real_array_and_a_batch_of_it_passes(
    shape: tuple[int, ...], dtype: DType, n: int
) -> None:
    spec = TensorSpec("x", dtype, shape, "window")
    array = np.zeros((n, *shape), dtype)

    assert spec.elements == np.zeros(shape).size
    assert spec.nbytes == np.zeros(shape, dtype).nbytes
    spec.check(array)


@given(SHAPES, SHAPES, DTYPES, DTYPES)
def test_an_array_passes_exactly_if_dtype_and_shape_are_the_spec_s(
    shape: tuple[int, ...], other: tuple[int, ...], dtype: DType, other_dtype: DType
) -> None:
    spec = TensorSpec("x", dtype, shape, "window")
    array = np.zeros((2, *other), other_dtype)

    if (shape, dtype) == (other, other_dtype):
        spec.check(array)
    else:
        with pytest.raises(ContentError, match=f"tensor 'x': expected {dtype}"):
            spec.check(array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 2), np.float32),
        np.zeros((), np.float32),
        np.zeros((1, 4, 2, 1), np.float32),
        np.zeros((1, 2, 4), np.float32),
        np.zeros((1, 4, 2), np.float64),
        np.zeros((1, 4, 2), ">f4"),
        np.zeros((1, 4, 2), object),
        np.zeros((1, 4, 2), "S4"),
        np.zeros((1, 4, 2), bool),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_what_is_nearly_a_batch_is_refused_with_what_came(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ContentError) as caught:
        TensorSpec("w", "float32", (4, 2), "window").check(array)

    assert str(caught.value).startswith("tensor 'w': expected float32 (n, 4, 2), got ")
    assert str(array.shape) in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((), "1 to 6 positive axes"),
        ((1,) * 7, "1 to 6 positive axes"),
        ((3, 0), "1 to 6 positive axes"),
        ((-3, -3), "1 to 6 positive axes"),
        ((limits.MAX_TENSOR_ELEMENTS + 1,), f"at most {limits.MAX_TENSOR_ELEMENTS}"),
        ((10**200, 10**200), f"at most {limits.MAX_TENSOR_ELEMENTS}"),
    ],
)
def test_a_shape_out_of_bounds_is_refused_by_name(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=rf"tensor 'w': .*{said}"):
        TensorSpec("w", "float32", shape, "window")


def test_the_bound_on_elements_is_exact() -> None:
    largest = TensorSpec("w", "uint8", (limits.MAX_TENSOR_ELEMENTS,), "tokens")

    assert largest.nbytes == limits.MAX_TENSOR_ELEMENTS


@given(SHAPES, DTYPES, st.sampled_from(get_args(Kind)), st.text(max_size=9))
def test_a_spec_comes_back_from_json_with_its_bounds(
    shape: tuple[int, ...], dtype: DType, kind: Kind, name: str
) -> None:
    spec = TensorSpec(name, dtype, shape, kind)
    data = msgspec.json.encode(spec)

    assert msgspec.json.decode(data, type=TensorSpec) == spec
    too_large = data.replace(b'"shape":[', b'"shape":[99999999,')
    with pytest.raises(msgspec.ValidationError, match=r"tensor|positive axes"):
        msgspec.json.decode(too_large, type=TensorSpec)
    assert math.prod(shape) == spec.elements


def test_a_key_that_a_spec_does_not_have_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.convert(
            {"name": "x", "dtype": "uint8", "shape": [1], "kind": "image", "colour": 1}, TensorSpec
        )
