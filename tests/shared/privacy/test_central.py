"""The central mechanism: clipping, noise on the sum, plans. Statistical bounds are six standard errors."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hedgerow.shared.errors import BudgetError, ConfigError, ContentError
from hedgerow.shared.job import CohortSpec, PrivacySpec
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.central import (
    CentralPlan,
    add_central_noise,
    check_central,
    clip_to,
    norm_l2,
    plan_central,
)
from hedgerow.shared.privacy.events import CentralRounds, UnprotectedRelease
from hedgerow.shared.privacy.noise import BLOCK, SeededStream, SystemRandom

SIX = 6.0
TENTH = CohortSpec(rule="poisson", rate=0.1)
NOISE_ONE = PrivacySpec(mode="central-poisson", delta=1e-5, noise_multiplier=1.0)


def exact_norm(vector: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    return math.sqrt(math.fsum(float(x) ** 2 for x in vector))


finite32 = st.floats(-(2.0**100), 2.0**100, width=32)


@given(arrays(np.float32, st.integers(1, 60), elements=finite32), st.floats(1e-6, 1e6))
@settings(max_examples=300, deadline=None)
def test_a_clipped_update_is_never_longer_than_the_bound_and_points_the_same_way(
    vector: np.ndarray[tuple[int], np.dtype[np.float32]], bound: float
) -> None:
    clipped = clip_to(vector, bound)

    assert clipped.dtype == np.float32
    assert norm_l2(clipped) <= bound
    assert exact_norm(clipped) <= bound * (1 + 1e-15)
    norm = exact_norm(vector)
    if norm <= bound * (1 - 1e-12):
        assert np.array_equal(clipped, vector)
    else:
        wanted = vector.astype(np.float64) * min(1.0, bound / norm)
        assert np.allclose(clipped, wanted, rtol=1e-5, atol=1e-40)


@pytest.mark.parametrize("bound", [1e-45, 1e-38, 1e-3, 1.0, 1e38])
def test_clipping_ends_at_the_ends_of_float32_too(bound: float) -> None:
    huge = np.full(5, np.finfo(np.float32).max, np.float32)

    clipped = clip_to(huge, bound)

    assert norm_l2(clipped) <= bound
    assert np.isfinite(clipped).all()


def test_zero_updates_are_fine_and_the_vector_given_is_never_touched() -> None:
    zero, long = np.zeros(4, np.float32), np.full(4, 3, np.float32)

    assert clip_to(zero, 1.0).tolist() == [0.0] * 4
    assert clip_to(zero, 1.0) is not zero
    assert clip_to(long, 1.0).tolist() == pytest.approx([0.5] * 4, rel=1e-6)
    assert long.tolist() == [3.0] * 4
    assert clip_to(np.zeros(0, np.float32), 1.0).shape == (0,)


def test_the_norm_of_a_vector_of_many_blocks_is_that_of_the_whole() -> None:
    vector = SeededStream.of(3).gaussian(2 * BLOCK + 5, 1.0).astype(np.float32)

    assert norm_l2(vector) == pytest.approx(float(np.linalg.norm(vector.astype(np.float64))), rel=1e-12)
    assert norm_l2(clip_to(vector, 2.5)) == pytest.approx(2.5, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, BLOCK + 1])
def test_a_value_that_is_not_finite_is_refused_wherever_it_stands(bad: float, at: int) -> None:
    vector = np.zeros(BLOCK + 2, np.float32)
    vector[at] = bad

    with pytest.raises(ContentError, match="not finite"):
        clip_to(vector, 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_is_a_positive_number(bound: float) -> None:
    with pytest.raises(ValueError, match="clip norm"):
        clip_to(np.ones(3, np.float32), bound)


def test_only_flat_float32_is_clipped() -> None:
    for wrong in (np.ones(3), np.ones((3, 1), np.float32)):
        with pytest.raises(ValueError, match="float32"):
            clip_to(wrong, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [SystemRandom(), SeededStream.of(11, "noise")])
def test_noise_on_the_sum_has_mean_zero_and_the_spread_of_z_times_c(
    stream: SystemRandom | SeededStream,
) -> None:
    """False alarm: two bounds of six standard errors, about 4e-9 a run."""
    n, z, clip = 300_000, 2.5, 0.4
    total = np.linspace(-5, 5, n)

    drawn = add_central_noise(total, z, clip, stream) - total

    sigma = z * clip
    assert abs(drawn.mean()) < SIX * sigma / math.sqrt(n)
    assert abs(drawn.var() / sigma**2 - 1) < SIX * math.sqrt(2 / n)


def test_noise_does_not_depend_on_the_sum_and_comes_with_an_empty_one() -> None:
    nobody, somebody = np.zeros(1000), np.linspace(0, 1, 1000)

    alone = add_central_noise(nobody, 1.0, 1.0, SeededStream.of(1))
    with_sum = add_central_noise(somebody, 1.0, 1.0, SeededStream.of(1))

    assert alone.std() > 0.5
    assert np.array_equal(with_sum, somebody + alone)


def test_each_coordinate_of_each_release_gets_noise_of_its_own() -> None:
    stream, zero = SystemRandom(), np.zeros(5000)

    first, second = (add_central_noise(zero, 1.0, 1.0, stream) for _ in range(2))

    assert len(np.unique(np.concatenate((first, second)))) == 10_000
    assert abs(float((first * second).mean())) < SIX / math.sqrt(5000)


def test_noise_may_be_added_in_place_and_is_the_same() -> None:
    n = 2 * BLOCK + 3
    total = np.linspace(0, 1, n)
    kept = total.copy()

    apart = add_central_noise(total, 3.0, 0.5, SeededStream.of(9))
    assert np.array_equal(total, kept)
    within = add_central_noise(total, 3.0, 0.5, SeededStream.of(9), out=total)

    assert within is total
    assert np.array_equal(within, apart)
    assert np.array_equal(apart, kept + SeededStream.of(9).gaussian(n, 1.5))


@pytest.mark.parametrize(("z", "clip"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (-1.0, -1.0), (math.nan, 1.0)])
def test_no_noise_is_no_noise(z: float, clip: float) -> None:
    with pytest.raises(ValueError, match="noise is positive"):
        add_central_noise(np.zeros(3), z, clip, SystemRandom())


def test_a_float32_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        add_central_noise(np.zeros(3, np.float32), 1.0, 1.0, SystemRandom())


def test_a_plan_from_noise_has_the_epsilon_of_the_oracle() -> None:
    plan = plan_central(NOISE_ONE, TENTH, 1000, 100)

    assert plan.epsilon == pytest.approx(7.047, rel=0.003)
    assert plan.epsilon_after(100, relation="replace") == pytest.approx(10.52, rel=0.003)
    assert plan.denominator == pytest.approx(100.0)
    assert plan.events() == (CentralRounds(0.1, 1.0, 100),)
    assert (plan.clip_norm_l2, plan.rounds, plan.delta, plan.population) == (1.0, 100, 1e-5, 1000)


def test_a_plan_from_epsilon_has_the_noise_of_the_oracle() -> None:
    asked = PrivacySpec(mode="central-poisson", epsilon=2.0, delta=1e-5, clip_norm_l2=0.3)

    plan = plan_central(asked, TENTH, 1000, 100)

    assert plan.noise_multiplier == pytest.approx(2.2478, rel=1e-3)
    assert 1.99 < plan.epsilon <= 2.0
    assert plan.clip_norm_l2 == 0.3


def test_epsilon_grows_round_by_round_up_to_the_plans() -> None:
    plan = plan_central(NOISE_ONE, TENTH, 50, 12)

    curve = [plan.epsilon_after(done) for done in range(13)]

    assert curve[0] == 0.0
    assert all(a < b for a, b in itertools.pairwise(curve))
    assert curve[-1] == plan.epsilon


def test_a_plan_leaves_room_for_what_the_devices_have_spent() -> None:
    spent = [CentralRounds(0.2, 2.0, 30)]
    asked = PrivacySpec(mode="central-poisson", epsilon=4.0, delta=1e-5)

    fresh, later = (plan_central(asked, TENTH, 100, 20, before) for before in ((), spent))

    assert later.noise_multiplier > fresh.noise_multiplier
    assert 3.9 < later.epsilon <= 4.0
    assert epsilon([*spent, *later.events()], 1e-5) == pytest.approx(later.epsilon, rel=1e-3)
    assert later.epsilon_after(20) < later.epsilon == later.epsilon_after(20, spent)


def test_a_plan_over_a_spent_budget_is_refused() -> None:
    asked = PrivacySpec(mode="central-poisson", epsilon=1.0, delta=1e-5)

    with pytest.raises(BudgetError, match="spent"):
        plan_central(asked, TENTH, 100, 10, [CentralRounds(0.5, 1.0, 100)])
    with pytest.raises(BudgetError):
        plan_central(NOISE_ONE, TENTH, 100, 10, [UnprotectedRelease("other")])


def test_noise_so_small_that_it_protects_nobody_is_refused() -> None:
    weak = PrivacySpec(mode="central-poisson", delta=1e-5, noise_multiplier=0.06)

    with pytest.raises(BudgetError, match="noise_multiplier"):
        plan_central(weak, CohortSpec(rule="poisson", rate=1.0), 10, 100)


@pytest.mark.parametrize(
    ("privacy", "cohort", "key"),
    [
        (PrivacySpec(mode="none"), TENTH, "privacy.mode"),
        (PrivacySpec(mode="central-poisson", epsilon=1.0), TENTH, "privacy.delta"),
        (PrivacySpec(mode="central-poisson", delta=1e-5), TENTH, "privacy.epsilon"),
        (
            PrivacySpec(mode="central-poisson", epsilon=1.0, delta=1e-5, noise_multiplier=1.0),
            TENTH,
            "privacy.epsilon",
        ),
        (NOISE_ONE, CohortSpec(), "cohort.rule"),
        (NOISE_ONE, CohortSpec(rule="fixed", size=5), "cohort.rule"),
        (NOISE_ONE, CohortSpec(rule="poisson"), "cohort.rule"),
    ],
)
def test_blocks_that_are_not_of_this_mode_are_refused_by_key(
    privacy: PrivacySpec, cohort: CohortSpec, key: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^job\.toml: {key}: "):
        check_central(privacy, cohort, "job.toml")
    with pytest.raises(ConfigError, match=key):
        plan_central(privacy, cohort, 100, 10)


@pytest.mark.parametrize(("population", "rounds"), [(0, 1), (1, 0), (-1, 5)])
def test_a_plan_needs_devices_and_rounds(population: int, rounds: int) -> None:
    with pytest.raises(ValueError, match="devices and rounds"):
        plan_central(NOISE_ONE, TENTH, population, rounds)


def test_drawing_everybody_is_a_rate_of_one() -> None:
    everybody = CohortSpec(rule="poisson", rate=1.0)

    plan = plan_central(NOISE_ONE, everybody, 40, 1)

    assert plan.denominator == 40.0
    assert plan.epsilon == pytest.approx(4.3772, rel=0.003)


def test_a_plan_survives_being_written_down() -> None:
    plan = plan_central(NOISE_ONE, TENTH, 30, 5)

    assert msgspec.json.decode(msgspec.json.encode(plan), type=CentralPlan) == plan


def test_a_job_without_the_newer_key_is_sent_as_it_always_was() -> None:
    """Devices of an earlier release refuse keys that they do not know."""
    example = PrivacySpec(mode="example", epsilon=8.0, delta=1e-5, clip_norm_l2=0.5)

    assert msgspec.to_builtins(example) == {
        "mode": "example",
        "epsilon": 8.0,
        "delta": 1e-5,
        "clip_norm_l2": 0.5,
    }
    assert msgspec.convert({"mode": "central-poisson", "noise_multiplier": 1.5}, PrivacySpec) == PrivacySpec(
        mode="central-poisson", noise_multiplier=1.5
    )
