"""Drawing a cohort over the registered devices."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.rounds import plan
from hedgerow.server.rounds.plan import draw_cohort
from hedgerow.shared.job import CohortSpec
from hedgerow.shared.privacy.noise import SeededStream

ALL = CohortSpec()
devices = st.lists(st.text("abc123-", min_size=1, max_size=6), max_size=30)


@given(devices)
def test_rule_all_draws_everybody_once_in_an_order_that_tells_nothing(registered: list[str]) -> None:
    assert draw_cohort(ALL, registered) == tuple(sorted(set(registered)))


@given(devices, st.integers(1, 40))
def test_rule_fixed_draws_that_many_different_registered_devices(registered: list[str], size: int) -> None:
    cohort = draw_cohort(CohortSpec(rule="fixed", size=size), registered)
    assert len(cohort) == len(set(cohort)) == min(size, len(set(registered)))
    assert set(cohort) <= set(registered)
    assert list(cohort) == sorted(cohort)


def test_every_device_is_drawn_about_as_often() -> None:
    rng = random.Random(7)
    spec = CohortSpec(rule="fixed", size=3)
    names = [f"d{i}" for i in range(10)]
    drawn = Counter(d for _ in range(4000) for d in draw_cohort(spec, names, rng))
    # 1200 expected, standard deviation 29: five of them is a false alarm in about one of 170,000 runs of another seed.
    assert all(abs(drawn[name] - 1200) < 145 for name in names)


def test_draws_come_from_the_operating_system_whatever_seeds_python() -> None:
    assert isinstance(plan._OS_RANDOM, random.SystemRandom)
    spec, names = CohortSpec(rule="fixed", size=10), [f"d{i}" for i in range(200)]
    random.seed(1)
    first = draw_cohort(spec, names)
    random.seed(1)
    assert draw_cohort(spec, names) != first


@given(devices, st.sampled_from([0.01, 0.5, 1.0]))
def test_rule_poisson_draws_registered_devices_at_most_once(registered: list[str], rate: float) -> None:
    cohort = draw_cohort(CohortSpec(rule="poisson", rate=rate), registered)
    assert list(cohort) == sorted(set(cohort))
    assert set(cohort) <= set(registered)
    if rate == 1.0:
        assert cohort == tuple(sorted(set(registered)))


def test_rule_poisson_throws_a_coin_per_device_on_its_own() -> None:
    """Counts, sizes and pairs within six standard errors: a false alarm in about one of 10^7 runs."""
    rate, n, rounds = 0.2, 20, 4000
    spec, names = CohortSpec(rule="poisson", rate=rate), [f"d{i:02}" for i in range(n)]
    cohorts = [draw_cohort(spec, names) for _ in range(rounds)]

    each = Counter(device for cohort in cohorts for device in cohort)
    spread = (rounds * rate * (1 - rate)) ** 0.5
    assert all(abs(each[name] - rounds * rate) < 6 * spread for name in names)
    sizes = [len(cohort) for cohort in cohorts]
    variance = sum((size - n * rate) ** 2 for size in sizes) / rounds
    expected = n * rate * (1 - rate)
    assert abs(variance / expected - 1) < 6 * ((2 + 1 / expected) / rounds) ** 0.5
    both = sum("d00" in cohort and "d01" in cohort for cohort in cohorts)
    assert abs(both - rounds * rate**2) < 6 * (rounds * rate**2 * (1 - rate**2)) ** 0.5
    assert 0 in sizes, "nobody is drawn in about one round of 87"


def test_coins_come_from_the_operating_system_whatever_seeds_python_and_from_a_seed_in_simulation() -> None:
    spec, names = CohortSpec(rule="poisson", rate=0.5), [f"d{i}" for i in range(200)]
    random.seed(1)
    first = draw_cohort(spec, names)
    random.seed(1)
    assert draw_cohort(spec, names) != first
    seeded = [draw_cohort(spec, names, coins=SeededStream.of(4, "cohort", 1)) for _ in range(2)]
    assert seeded[0] == seeded[1]
