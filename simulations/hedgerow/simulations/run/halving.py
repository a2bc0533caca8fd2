"""Successive halving (Jamieson and Talwalkar 2016) as pure functions: which trials, how long, who goes on."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from hedgerow.simulations.scenario.spec import SweepSpec

_MOST = 1_000_000
"""Of so many, drawing until all are different is quick: a sweep has at most 10,000 trials."""


def combinations(spec: SweepSpec, seed: int) -> list[dict[str, Any]]:
    """Return what each trial sets: all combinations of the fields' values, or ``spec.trials`` of them drawn by ``seed``.

    Their order is that of the fields and values as written.
    """
    names = list(spec.fields)
    values = [spec.fields[name] for name in names]
    total = math.prod(len(one) for one in values)
    if total <= spec.trials:
        return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]
    rng = random.Random(seed)  # noqa: S311  a search draws no secrets
    places = _places(rng, total, spec.trials)
    return [dict(zip(names, _combination(values, place), strict=True)) for place in places]


def _places(rng: random.Random, total: int, count: int) -> list[int]:
    """Return ``count`` different numbers below ``total``, all equally likely, rising; ``total`` may be of any size."""
    if total <= _MOST:
        return sorted(rng.sample(range(total), count))
    found: set[int] = set()
    while len(found) < count:
        found.add(rng.randrange(total))
    return sorted(found)


def rung_rounds(spec: SweepSpec, rung: int, left: int, rounds: int) -> int:
    """Return to which round the ``left`` trials of ``rung`` (counted from 0) are run, of a job of ``rounds``."""
    return rounds if left == 1 else min(rounds, spec.first_rounds * spec.keep_one_of**rung)


def survivors(scores: Mapping[int, float], keep_one_of: int, higher_is_better: bool) -> list[int]:
    """Return the trials that go on: the best of ``keep_one_of``, at least one, in their order; ties to the earlier.

    A score that is not a number comes last.
    """
    return sorted(ranked(scores, higher_is_better)[: max(1, len(scores) // keep_one_of)])


def ranked(scores: Mapping[int, float], higher_is_better: bool) -> list[int]:
    """Return the trials from best to worst."""
    sign = -1.0 if higher_is_better else 1.0

    def key(number: int) -> tuple[bool, float, int]:
        score = scores[number]
        return (math.isnan(score), 0.0 if math.isnan(score) else sign * score, number)

    return sorted(scores, key=key)


def _combination(values: Sequence[Sequence[Any]], place: int) -> list[Any]:
    """Return combination number ``place``, the last field changing fastest, as ``itertools.product`` counts."""
    chosen = []
    for one in reversed(values):
        place, at = divmod(place, len(one))
        chosen.append(one[at])
    return chosen[::-1]
