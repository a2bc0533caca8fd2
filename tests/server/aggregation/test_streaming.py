"""Streaming aggregation against numpy's mean: any order, any packing, bounded memory, refusals without a trace."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.aggregation import streaming
from hedgerow.server.aggregation.aggregator import Update
from hedgerow.server.aggregation.algorithm import algorithm_for, fedavg
from hedgerow.server.aggregation.streaming import StreamingAggregator, StreamingSum
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import Packing, StrategySpec
from hedgerow.shared.packing import Vector, pack, unpack


def update(vector: Vector, packing: Packing = "float32", weight: float = 1.0, device: str = "d") -> Update:
    data = pack(vector, packing, np.random.default_rng(0))
    third = max(1, len(data) // 3)
    views = [memoryview(data)[at : at + third] for at in range(0, len(data), third)]
    return Update(device, views, weight)


def opened(n: int, packing: Packing = "float32", rate: float = 1.0) -> StreamingSum:
    return StreamingAggregator(fedavg(rate), n, packing).open(1, b"")


vectors = st.integers(1, 300).flatmap(
    lambda n: st.tuples(
        st.just(n), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e6])
    )
)


@settings(deadline=None)
@given(case=vectors, packing=st.sampled_from(["float32", "float16", "int8"]), wide=st.booleans())
def test_the_release_is_the_model_plus_the_mean_of_what_was_packed(
    case: tuple[int, int, int, float], packing: Packing, wide: bool
) -> None:
    n, devices, seed, scale = case
    rng = np.random.default_rng(seed)
    scale = min(scale, 1000.0) if packing == "float16" else scale
    deltas = (rng.standard_normal((devices, n)) * scale).astype(np.float32)
    model = rng.standard_normal(n).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "WIDE_LIMIT", 10**9 if wide else 0)
        total = opened(n, packing)
        for delta in deltas:
            total.add(update(delta, packing))
        released = total.release(model).model
    received = [unpack(pack(d, packing, np.random.default_rng(0)), n, packing) for d in deltas]
    expected = model.astype(np.float64) + np.mean(np.array(received, np.float64), axis=0)
    magnitude = np.abs(np.array(received, np.float64)).sum(axis=0) + np.abs(model)
    rounding = 2.0**-24 if wide else (devices + 3) * 2.0**-24
    assert np.all(np.abs(released - expected) <= rounding * (magnitude + np.abs(expected)) + 1e-45)
    assert released.dtype == np.float32


@settings(deadline=None)
@given(case=vectors, shuffle=st.randoms(use_true_random=False))
def test_the_order_of_arrival_stays_below_one_rounding_of_the_wide_sum(case, shuffle) -> None:  # type: ignore[no-untyped-def]
    n, devices, seed, scale = case
    deltas = (np.random.default_rng(seed).standard_normal((devices, n)) * scale).astype(np.float32)
    orders = [list(range(devices)), shuffle.sample(range(devices), devices)]
    models = []
    for order in orders:
        total = opened(n)
        for index in order:
            total.add(update(deltas[index]))
        models.append(total.release(np.zeros(n, np.float32)).model)
    gap = np.abs(models[0].astype(np.float64) - models[1])
    assert np.all(gap <= np.spacing(np.abs(models[0])) + 2.0**-50 * scale * devices)


def test_deltas_that_float64_sums_exactly_give_the_same_bits_in_any_order() -> None:
    rng = np.random.default_rng(5)
    deltas = [(rng.integers(-1000, 1000, 500) / 1024).astype(np.float32) for _ in range(50)]
    results = set()
    for _ in range(5):
        total = opened(500)
        for index in rng.permutation(50):
            total.add(update(deltas[index]))
        results.add(total.release(np.ones(500, np.float32)).model.tobytes())
    assert len(results) == 1


@settings(deadline=None)
@given(weights=st.lists(st.integers(1, 10_000), min_size=1, max_size=8), seed=st.integers(0, 2**31))
def test_weights_count_as_repetitions(weights: list[int], seed: int) -> None:
    deltas = np.random.default_rng(seed).standard_normal((len(weights), 40)).astype(np.float32)
    total = opened(40)
    for delta, weight in zip(deltas, weights, strict=True):
        total.add(update(delta, weight=float(weight)))
    expected = np.average(deltas.astype(np.float64), axis=0, weights=weights)
    assert total.release(np.zeros(40, np.float32)).model == pytest.approx(expected, rel=1e-5, abs=1e-6)


BAD: dict[str, bytes] = {
    "nan at the end": np.array([1] * 199 + [np.nan], "<f4").tobytes(),
    "infinity at the start": np.array([-np.inf] + [1] * 199, "<f4").tobytes(),
    "short": bytes(796),
    "long": bytes(804),
    "empty": b"",
    "huge": np.full(200, 1e38, "<f4").tobytes(),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("wide", [True, False])
def test_a_refused_update_leaves_no_trace(case: str, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WIDE_LIMIT", 10**9 if wide else 0)
    with_bad, without = opened(200), opened(200)
    for total in (with_bad, without):
        total.add(update(np.ones(200, np.float32)))
    with pytest.raises(UpdateRejectedError):
        with_bad.add(Update("x", [memoryview(BAD[case])]))
    for total in (with_bad, without):
        total.add(update(np.full(200, 3, np.float32)))
    model = np.arange(200, dtype=np.float32)
    assert with_bad.count == without.count == 2
    assert with_bad.release(model).model.tobytes() == without.release(model).model.tobytes()


def test_without_updates_the_model_stays_and_is_a_copy() -> None:
    model = np.arange(5, dtype=np.float32)
    released = opened(5).release(model).model
    assert released.tolist() == model.tolist()
    assert released is not model


def test_the_server_learning_rate_scales_the_step_and_the_model_is_not_changed() -> None:
    model = np.arange(100, dtype=np.float32)
    total = opened(100, rate=0.25)
    total.add(update(np.full(100, 4, np.float32)))
    assert total.release(model).model.tolist() == (np.arange(100) + 1).tolist()
    assert model.tolist() == list(range(100))


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_our_strategies_are_found_by_name(name: str) -> None:
    algorithm = algorithm_for(StrategySpec(name=name, server_learning_rate=2.0))
    state, model = algorithm.apply(algorithm.init(2), np.zeros(2, np.float32), np.array([2.0, 4.0]), 2.0)
    assert (state, model.tolist()) == (b"", [2.0, 4.0])


def test_memory_does_not_grow_with_the_cohort_and_stays_at_two_copies() -> None:
    n = streaming.WIDE_LIMIT + 1  # the smallest model whose sum is float32
    model = np.zeros(n, np.float32)
    data = np.ones(n, "<f4").view(np.uint8).data
    part = 5_000_011  # neither a power of two nor a multiple of four
    payload = [data[at : at + part] for at in range(0, data.nbytes, part)]
    tracemalloc.start()
    try:
        total = opened(n)
        for _ in range(3):
            total.add(Update("d", payload))
        after_three, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(12):
            total.add(Update("d", payload))
        after_fifteen, peak = tracemalloc.get_traced_memory()
        released = total.release(model)
        _, peak_release = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    copy = 4 * n
    assert after_fifteen - after_three < 64 * 1024
    assert peak < 1.1 * copy, "the sum and a block"
    assert peak_release < 2.1 * copy, "the sum, the next model and a block"
    assert released.model.max() == 1.0
