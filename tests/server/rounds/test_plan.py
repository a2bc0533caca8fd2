"""Drawing a cohort over the registered devices."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.rounds import plan
from hedgerow.server.rounds.plan import draw_cohort
from hedgerow.shared.job import CohortSpec

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
