"""Packed updates read over any cut of their bytes, and the check before they count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.aggregation.chunks import Chunks
from hedgerow.server.aggregation.payload import MAX_NORM_L2, STEP, Payload
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import pack, unpack

PACKINGS: tuple[Packing, ...] = ("float32", "float16", "int8")


def cut(data: bytes, at: list[int]) -> list[memoryview]:
    bounds = [0, *sorted(min(a, len(data)) for a in at), len(data)]
    return [memoryview(data)[a:b] for a, b in itertools.pairwise(bounds)]


def read(payload: Payload) -> np.ndarray:
    out = np.full(payload.n, np.nan, np.float32)
    for offset, values in payload.blocks():
        out[offset : offset + values.size] = values
    return out


@given(data=st.binary(max_size=200), at=st.lists(st.integers(0, 200), max_size=8), ends=st.data())
def test_chunks_read_as_the_joined_bytes_would(data: bytes, at: list[int], ends: st.DataObject) -> None:
    chunks = Chunks(cut(data, at))
    start = ends.draw(st.integers(0, len(data)))
    stop = ends.draw(st.integers(start, len(data)))
    assert bytes(chunks.read(start, stop - start)) == data[start:stop]
    assert chunks.nbytes == len(data)


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, 11), (10, 1), (0, -1)])
def test_chunks_refuse_to_read_beyond_their_bytes(start: int, count: int) -> None:
    with pytest.raises(ValueError, match="of 10"):
        Chunks([memoryview(bytes(4)), memoryview(bytes(6))]).read(start, count)


def test_a_read_inside_one_buffer_copies_nothing() -> None:
    data = np.arange(10, dtype=np.uint8)
    view = Chunks([data.data, data.data]).read(12, 5)
    data[2] = 99
    assert view[0] == 99


@settings(deadline=None)
@given(
    n=st.integers(0, 9000),
    packing=st.sampled_from(PACKINGS),
    at=st.lists(st.integers(0, 36_000), max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_are_what_the_contract_unpacks_however_the_bytes_are_cut(
    n: int, packing: Packing, at: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    data = pack(rng.standard_normal(n).astype(np.float32), packing, rng)
    assert np.array_equal(read(Payload(cut(data, at), n, packing)), unpack(data, n, packing))


@pytest.mark.parametrize("packing", PACKINGS)
def test_large_updates_come_in_blocks_of_bounded_size(packing: Packing) -> None:
    n = 3 * STEP + 17
    vector = np.random.default_rng(1).standard_normal(n).astype(np.float32)
    data = pack(vector, packing, np.random.default_rng(2))
    payload = Payload(cut(data, [1, 100_001, 400_003]), n, packing)
    assert [values.size for _, values in payload.blocks()] == [STEP, STEP, STEP, 17]
    assert np.array_equal(read(payload), unpack(data, n, packing))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("by", [-1, 1])
def test_a_wrong_byte_count_is_refused(packing: Packing, by: int) -> None:
    data = pack(np.ones(100, np.float32), packing)
    data = data[:by] if by < 0 else data + b"\0"
    with pytest.raises(UpdateRejectedError) as refused:
        Payload([memoryview(data)], 100, packing)
    assert refused.value.reason == "wrong-size"


@settings(deadline=None)
@given(
    n=st.integers(1, 3000),
    where=st.integers(0, 2999),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    packing=st.sampled_from(["float32", "float16"]),
)
def test_one_value_that_is_not_finite_is_found_wherever_it_is(
    n: int, where: int, bad: float, packing: Packing
) -> None:
    vector = np.zeros(n, "<f4" if packing == "float32" else "<f2")
    vector[where % n] = bad
    with pytest.raises(UpdateRejectedError) as refused:
        Payload([memoryview(vector.tobytes())], n, packing).check()
    assert refused.value.reason == "non-finite"


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_an_int8_update_with_a_scale_that_is_not_finite_is_refused(scale: float) -> None:
    data = np.array([scale], "<f4").tobytes() + np.ones(10, np.int8).tobytes()
    with pytest.raises(UpdateRejectedError) as refused:
        Payload([memoryview(data)], 10, "int8").check()
    assert refused.value.reason == "non-finite"


def test_the_norm_is_that_of_the_whole_vector() -> None:
    vector = np.random.default_rng(3).standard_normal(2 * STEP + 5).astype(np.float32)
    norm = Payload([memoryview(vector.tobytes())], vector.size, "float32").norm()
    assert norm == pytest.approx(float(np.linalg.norm(vector.astype(np.float64))), rel=1e-6)


@pytest.mark.parametrize(("limit", "refused"), [(5.01, False), (5.0, False), (4.99, True)])
def test_the_norm_limit_is_inclusive(limit: float, refused: bool) -> None:
    payload = Payload([memoryview(np.array([3, 4], "<f4").tobytes())], 2, "float32")
    if not refused:
        payload.check(limit)
        return
    with pytest.raises(UpdateRejectedError) as error:
        payload.check(limit)
    assert error.value.reason == "over-norm"


def test_finite_values_whose_squares_overflow_are_over_norm_not_non_finite() -> None:
    payload = Payload([memoryview(np.full(8, 1e30, "<f4").tobytes())], 8, "float32")
    with pytest.raises(UpdateRejectedError) as error:
        payload.check(1e300)
    assert error.value.reason == "over-norm"
    assert f"{MAX_NORM_L2:.6g}" in error.value.detail


def test_zero_updates_are_welcome() -> None:
    for packing in PACKINGS:
        zeros = Payload([memoryview(pack(np.zeros(100, np.float32), packing))], 100, packing)
        zeros.check()
        assert zeros.norm() == 0.0
        Payload([], 0, packing).check()


@settings(deadline=None)
@given(n=st.integers(1, 9000), seed=st.integers(0, 2**32 - 1), packing=st.sampled_from(PACKINGS))
def test_the_cheap_check_never_passes_what_the_exact_norm_would_not(
    n: int, seed: int, packing: Packing
) -> None:
    rng = np.random.default_rng(seed)
    vector = (rng.standard_normal(n) * rng.choice([1e-3, 1.0, 100.0])).astype(np.float32)
    payload = Payload([memoryview(pack(vector, packing, rng))], n, packing)
    norm = payload.norm()
    assert norm == pytest.approx(float(np.linalg.norm(read(payload).astype(np.float64))), rel=1e-5)
    assert payload._norm_bound() >= norm
    payload.check(norm * 1.001)
    if norm > 0:
        with pytest.raises(UpdateRejectedError):
            payload.check(norm * 0.999)
