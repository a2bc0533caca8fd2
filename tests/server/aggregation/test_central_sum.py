"""The central sum: what a device can do to it, what it is divided by, what noise it gets. Bounds are six standard errors."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.aggregation.aggregator import Update
from hedgerow.server.aggregation.algorithm import fedadam, fedavg, fedavgm
from hedgerow.server.aggregation.central import (
    TOLERANCE,
    CentralAggregator,
    CentralSum,
    FixedGaussian,
    _joined,
    _split,
)
from hedgerow.server.aggregation.payload import STEP
from hedgerow.shared.errors import IntegrityError, UpdateRejectedError
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import Vector, pack, unpack
from hedgerow.shared.privacy.central import CentralPlan, clip_to, norm_l2
from hedgerow.shared.privacy.noise import Doubles, RandomStream, SeededStream, SystemRandom

SIX = 6.0
PACKINGS: list[Packing] = ["float32", "float16", "int8"]


class Silent(SeededStream):
    """A stream whose noise is nothing, to look at sums exactly."""

    def __init__(self) -> None:
        super().__init__(bytes(32))

    def gaussian(self, count: int, sigma: float) -> Doubles:
        assert sigma > 0
        return np.zeros(count)


def plan(*, clip: float = 1.0, population: int = 40, rate: float = 0.25, z: float = 1.0) -> CentralPlan:
    return CentralPlan(rate, population, z, clip, 10, 1e-5, 1.0)


def opened(
    n: int, packing: Packing = "float32", stream: RandomStream | None = None, **changes: float
) -> CentralSum:
    mechanism = FixedGaussian(plan(**changes), stream or Silent())  # type: ignore[arg-type]
    aggregator = CentralAggregator(fedavg(), mechanism, n, packing)
    return aggregator.open(1, aggregator.initial_state())


def update(vector: Vector, packing: Packing = "float32", seed: int = 0, weight: float = 1.0) -> Update:
    data = pack(vector, packing, np.random.default_rng(seed))
    third = max(1, len(data) // 3)
    return Update("d", [memoryview(data)[at : at + third] for at in range(0, len(data), third)], weight)


def share_of(total: CentralSum) -> Doubles:
    return total._total


shapes = st.tuples(
    st.integers(1, 300),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.01, 1.0, 30.0]),
    st.sampled_from(["dense", "one large", "heavy"]),
)


def drawn(n: int, seed: int, shape: str) -> Vector:
    rng = np.random.default_rng(seed)
    if shape == "dense":
        return rng.standard_normal(n).astype(np.float32)
    if shape == "heavy":
        return rng.standard_cauchy(n).astype(np.float32)
    vector = (rng.random(n) * 1e-3).astype(np.float32)
    vector[rng.integers(n)] = 100
    return vector


@pytest.mark.parametrize("packing", PACKINGS)
@given(case=shapes)
@settings(max_examples=150, deadline=None)
def test_an_honest_devices_update_always_counts_and_its_share_is_never_above_the_clip(
    packing: Packing, case: tuple[int, int, float, str]
) -> None:
    n, seed, clip, shape = case
    total = opened(n, packing, clip=clip)
    clipped = clip_to(drawn(n, seed, shape), clip)

    total.add(update(clipped, packing, seed))

    share = share_of(total)
    assert math.sqrt(math.fsum(x * x for x in share.tolist())) <= clip * (1 + 1e-15)
    received = unpack(pack(clipped, packing, np.random.default_rng(seed)), n, packing).astype(np.float64)
    norm = float(np.linalg.norm(received))
    assert np.allclose(share, received * min(1.0, clip / norm if norm else 1.0), rtol=1e-9, atol=1e-12)
    assert total.count == 1


@pytest.mark.parametrize("seed", range(5))
def test_int8_does_lengthen_updates_so_that_clipping_again_is_needed(seed: int) -> None:
    """One value dwarfs the rest: each small one becomes zero or a whole step of the block's scale."""
    vector = np.full(4096, 2e-3, np.float32)
    vector[0] = 1.0
    clipped = clip_to(vector, 1.0)
    data = pack(clipped, "int8", np.random.default_rng(seed))

    assert 1.0 < norm_l2(unpack(data, 4096, "int8")) < TOLERANCE["int8"]
    total = opened(4096, "int8")
    total.add(Update("d", [memoryview(data)]))
    assert float(np.linalg.norm(share_of(total))) <= 1.0


@given(n=st.integers(4096, 20_000), seed=st.integers(0, 2**32 - 1), ratio=st.floats(1e-4, 1.0))
@settings(max_examples=40, deadline=None)
def test_no_honest_update_is_lengthened_beyond_what_int8_may(n: int, seed: int, ratio: float) -> None:
    vector = np.full(n, ratio, np.float32)
    vector[:: max(1, n // 3)] = 1.0

    packed = pack(clip_to(vector, 1.0), "int8", np.random.default_rng(seed))

    assert norm_l2(unpack(packed, n, "int8")) < TOLERANCE["int8"]


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_device_that_did_not_clip_contributes_nothing(packing: Packing) -> None:
    total = opened(50, packing)
    total.add(update(np.full(50, 0.1, np.float32), packing))
    before = share_of(total).copy()

    for times in (TOLERANCE[packing] * 1.2, 10.0, 1000.0):
        long = clip_to(np.ones(50, np.float32), 1.0) * np.float32(times)
        with pytest.raises(UpdateRejectedError, match="over-norm") as refused:
            total.add(update(long, packing))
        assert refused.value.reason == "over-norm"
    assert np.array_equal(share_of(total), before)
    assert total.count == 1


@pytest.mark.parametrize("at", [0, STEP - 1, STEP, STEP + 10])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_before_anything_is_added(at: int, bad: float) -> None:
    total = opened(STEP + 11)
    vector = np.zeros(STEP + 11, "<f4")
    vector[at], vector[0 if at else 1] = bad, 0.5

    with pytest.raises(UpdateRejectedError) as refused:
        total.add(Update("d", [memoryview(vector.tobytes())]))

    assert refused.value.reason == "non-finite"
    assert not share_of(total).any()
    assert total.count == 0


def test_an_update_of_another_size_is_refused() -> None:
    with pytest.raises(UpdateRejectedError) as refused:
        opened(5).add(Update("d", [memoryview(bytes(16))]))
    assert refused.value.reason == "wrong-size"


def test_zero_updates_are_fine() -> None:
    total = opened(5)
    total.add(update(np.zeros(5, np.float32)))
    assert total.count == 1
    assert total.release(np.ones(5, np.float32)).model.tolist() == [1.0] * 5


@pytest.mark.parametrize("replies", [0, 1, 3, 10, 25])
def test_the_sum_is_divided_by_the_constant_however_many_came(replies: int) -> None:
    total = opened(8, population=40, rate=0.25)
    one = np.full(8, 0.3, np.float32)
    for _ in range(replies):
        total.add(update(one))

    model = total.release(np.zeros(8, np.float32)).model

    assert np.allclose(model, replies * one / 10.0, rtol=1e-6)


def test_weights_play_no_part() -> None:
    light, heavy = opened(8), opened(8)
    light.add(update(np.full(8, 0.3, np.float32), weight=1.0))
    heavy.add(update(np.full(8, 0.3, np.float32), weight=1000.0))
    assert np.array_equal(share_of(light), share_of(heavy))


@pytest.mark.parametrize("replies", [0, 7])
def test_the_released_mean_has_the_noise_of_the_sum_over_the_constant(replies: int) -> None:
    """σ = z·C / (q·N), with nobody's update too. Two bounds of six standard errors: about 4e-9 a run."""
    n, z, clip = 200_000, 1.7, 0.6
    total = opened(n, stream=SystemRandom(), clip=clip, z=z, population=200, rate=0.1)
    one = clip_to(np.ones(n, np.float32), clip)
    for _ in range(replies):
        total.add(update(one))

    model = total.release(np.zeros(n, np.float32)).model.astype(np.float64)

    noise, sigma = model - replies * one / 20.0, z * clip / 20.0
    assert abs(noise.mean()) < SIX * sigma / math.sqrt(n)
    assert abs(noise.var() / sigma**2 - 1) < SIX * math.sqrt(2 / n)


def test_two_releases_of_the_same_updates_have_noise_of_their_own() -> None:
    models = []
    mechanism = FixedGaussian(plan(), SystemRandom())
    aggregator = CentralAggregator(fedavg(), mechanism, 1000, "float32")
    for round in (1, 2):
        models.append(aggregator.open(round, b"").release(np.zeros(1000, np.float32)).model)
    assert abs(float(np.corrcoef(models[0], models[1])[0, 1])) < SIX / math.sqrt(1000)


def test_a_sum_is_released_once() -> None:
    total = opened(4)
    total.release(np.zeros(4, np.float32))
    with pytest.raises(RuntimeError, match="released before"):
        total.release(np.zeros(4, np.float32))


def test_what_the_strategy_does_with_the_noisy_mean_is_post_processing() -> None:
    """The strategy sees the noisy sum and the constant, and nothing else: the same noise gives the same step."""
    model = np.zeros(6, np.float32)
    noise = SeededStream.of(1).gaussian(6, 1.0)
    for algorithm in (fedavgm(0.5, 0.9), fedadam(0.1)):
        aggregator = CentralAggregator(algorithm, FixedGaussian(plan(), SeededStream.of(1)), 6, "float32")
        total = aggregator.open(1, aggregator.initial_state())
        total.add(update(np.full(6, 0.25, np.float32)))
        released = total.release(model)
        state, expected = algorithm.apply(b"", model, noise + 0.25, 10.0)
        assert np.array_equal(released.model, expected)
        assert _split(released.state) == (b"", state)


def test_the_strategys_memory_goes_on_from_round_to_round() -> None:
    aggregator = CentralAggregator(fedavgm(1.0, 0.5), FixedGaussian(plan(), Silent()), 3, "float32")
    model, state = np.zeros(3, np.float32), aggregator.initial_state()
    for round in (1, 2):
        total = aggregator.open(round, state)
        total.add(update(np.full(3, 0.5, np.float32)))
        model, state = total.release(model)
    assert np.allclose(model, 0.05 + 0.05 * 1.5)


class Remembering:
    """A mechanism with state, as correlated noise or an adaptive clip will have: counts rounds, halves its clip."""

    denominator = 4.0

    def initial_state(self, n: int) -> bytes:
        return n.to_bytes(2, "little") + b"\x00"

    def clip_norm_l2(self, state: bytes) -> float:
        return 2.0 ** -state[2]

    def release(self, state: bytes, total: Doubles) -> tuple[bytes, Doubles]:
        return state[:2] + bytes([state[2] + 1]), total + 100 * state[2]


def test_a_mechanism_with_state_of_its_own_gets_it_back_beside_the_strategys() -> None:
    aggregator = CentralAggregator(fedavgm(1.0, 0.0), Remembering(), 2, "float32")
    model, state = np.zeros(2, np.float32), aggregator.initial_state()
    for round in (1, 2, 3):
        total = aggregator.open(round, state)
        with pytest.raises(UpdateRejectedError, match=f"clips to {2.0 ** (1 - round):g}"):
            total.add(update(np.full(2, 2.0, np.float32)))
        total.add(update(clip_to(np.ones(2, np.float32), 2.0 ** (1 - round))))
        before = model
        model, state = total.release(model)
        step = 2.0 ** (1 - round) / math.sqrt(2) / 4 + 25 * (round - 1)
        assert np.allclose(model - before, step, rtol=1e-5)
    assert _split(state)[0] == b"\x02\x00\x03"


@pytest.mark.parametrize(("first", "second"), [(b"", b""), (b"a", b""), (b"", b"b"), (b"abc", bytes(1000))])
def test_two_states_are_kept_as_one_and_come_apart_again(first: bytes, second: bytes) -> None:
    assert _split(_joined(first, second)) == (first, second)


@pytest.mark.parametrize("cut", [1, 7, 8, 10])
def test_a_state_that_was_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(IntegrityError, match="cut off"):
        opened_with(_joined(b"abc", b"de")[:cut])


def opened_with(state: bytes) -> CentralSum:
    return CentralAggregator(fedavg(), FixedGaussian(plan(), Silent()), 2, "float32").open(1, state)


def test_memory_does_not_grow_with_the_cohort() -> None:
    n = 500_000
    vector = clip_to(np.ones(n, np.float32), 1.0)
    one = Update("d", [memoryview(vector.tobytes())])
    tracemalloc.start()
    try:
        total = opened(n)
        for _ in range(12):
            total.add(one)
        total.release(vector)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4.5 * vector.nbytes
