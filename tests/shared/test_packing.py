"""Packing keeps what it promises: exact float32, bounded float16, unbiased int8, and refuses everything else."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import BLOCK, pack, packed_bytes, unpack, unpack_blocks

PACKINGS: tuple[Packing, ...] = get_args(Packing)
vectors = arrays(np.float32, st.integers(0, 3000), elements=st.floats(-1e4, 1e4, width=32))


@given(vectors)
def test_float32_comes_back_bit_for_bit(vector: np.ndarray) -> None:
    assert unpack(pack(vector, "float32"), vector.size, "float32").tobytes() == vector.tobytes()


@given(vectors)
def test_float16_comes_back_within_half_an_ulp(vector: np.ndarray) -> None:
    back = unpack(pack(vector, "float16"), vector.size, "float16")

    assert np.all(np.abs(back - vector) <= np.maximum(np.abs(vector) * 2**-11, 2**-25))


@given(vectors, st.integers(0, 2**32))
def test_int8_is_within_one_step_of_its_block(vector: np.ndarray, seed: int) -> None:
    back = unpack(pack(vector, "int8", np.random.default_rng(seed)), vector.size, "int8")

    step = (np.abs(vector).max() if vector.size else 0.0) / 127
    assert np.all(np.abs(back - vector) <= step * 1.001 + 1e-30)


def test_int8_rounding_is_unbiased() -> None:
    # 4000 draws of a value 0.3 of a step above a code: the mean's standard error is 0.46 / sqrt(4000) = 0.0073 steps,
    # so a correct coder fails this 5-sigma check less than once in a million runs.
    vector = np.array([1.27, 0.013 + 0.003], np.float32)
    rng = np.random.default_rng(1)

    mean = np.mean([unpack(pack(vector, "int8", rng), 2, "int8")[1] for _ in range(4000)])

    assert abs(mean - vector[1]) < 5 * 0.0073 * 0.01


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 20 * BLOCK + 7])
def test_size_is_exact_and_blocks_cover_the_vector(packing: Packing, n: int) -> None:
    vector = np.linspace(-1, 1, n, dtype=np.float32)

    data = pack(vector, packing)
    spans = [(offset, values.size) for offset, values in unpack_blocks(data, n, packing)]

    assert len(data) == packed_bytes(n, packing)
    assert sum(size for _, size in spans) == n
    assert all(spans[i][0] + spans[i][1] == spans[i + 1][0] for i in range(len(spans) - 1))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("change", [b"", b"x"])
def test_wrong_size_is_rejected_with_its_reason(packing: Packing, change: bytes) -> None:
    data = pack(np.ones(10, np.float32), packing)
    data = data + change if change else data[:-1]

    with pytest.raises(UpdateRejectedError) as caught:
        unpack(data, 10, packing)

    assert caught.value.reason == "wrong-size"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_rejected_on_both_sides(bad: float) -> None:
    vector = np.array([0, bad, 1], np.float32)

    with pytest.raises(ValueError, match="non-finite"):
        pack(vector, "float32")
    with pytest.raises(UpdateRejectedError) as caught:
        unpack(vector.tobytes(), 3, "float32")
    assert caught.value.reason == "non-finite"


def test_an_infinite_int8_scale_is_rejected() -> None:
    data = np.array([np.inf], "<f4").tobytes() + bytes([1, 2])

    with pytest.raises(UpdateRejectedError) as caught:
        unpack(data, 2, "int8")

    assert caught.value.reason == "non-finite"


def test_float16_overflow_is_refused_before_sending() -> None:
    with pytest.raises(ValueError, match="float16"):
        pack(np.array([1e6], np.float32), "float16")


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 60), st.sampled_from(PACKINGS))
def test_garbage_gives_a_vector_or_a_named_rejection(data: bytes, n: int, packing: Packing) -> None:
    try:
        out = unpack(data, n, packing)
    except UpdateRejectedError as error:
        assert error.reason in {"wrong-size", "non-finite"}
    else:
        assert out.shape == (n,)
        assert np.isfinite(out).all()
