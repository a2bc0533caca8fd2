"""The search: candidates in three steps, the criterion, and the rule for ties. docs/skab.md states it in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from hedgerow.models.recipe import Recipe
from hedgerow.shared.job import Job
from hedgerow.shared.profile import DeviceProfile
from hedgerow.simulations.bench.selection.charts import Course, Judged, alarms, count, fit_charts
from hedgerow.simulations.bench.selection.statistics import Planted, Statistics, statistics

QUANTILE: Final = 0.99
FAR_LIMIT: Final = 12.0
FAR_STEP: Final = 2.0
TIE: Final = 0.005
_ALL_FALSE: Final = 100.0

ROWS: Final = (16, 32, 60)
NETWORKS: Final = ((32, 8), (64, 16))
CLIPS: Final = (2.0, 4.0)
MEMORIES: Final = (5.0, 10.0, 20.0)
FACTORS: Final = (0.85, 1.0, 1.2, 1.45, 1.75, 2.1)
DRIFT_RATIOS: Final = (None, 0.5)
SPREADS: Final = (("whole", 0.0), ("held-out", 0.0), ("whole", 200.0), ("whole", 800.0))
FOLLOW_ROWS: Final = (100.0, 200.0, 400.0)
FOLLOW_BELOW: Final = (0.5, 1.0)
FOLLOW_GATES: Final = ("all", "each")
LEASHES: Final = (3.0,)
RELEASES: Final = (1.0, 0.7)
SCALINGS: Final[tuple[Literal["public", "device"], ...]] = ("public", "device")
CENTRINGS: Final[tuple[Literal["fixed", "window"], ...]] = ("fixed", "window")


class Options(msgspec.Struct, frozen=True):
    """A candidate: the parameters of the recipe that are chosen here."""

    rows: int
    hidden: int
    code: int
    clip: float
    memory_rows: float = MEMORIES[0]
    drift_ratio: float | None = None
    spread: str = "whole"
    wander_rows: float = 0.0
    dispersion: bool = False
    factor: float = 1.0
    follow_rows: float | None = None
    follow_below: float = 0.5
    follow_gate: str = "all"
    leash: float = 3.0
    release: float = 1.0
    scaling: Literal["public", "device"] = "device"
    centring: Literal["fixed", "window"] = "fixed"

    def network(self) -> dict[str, Any]:
        """Return the part that training depends on."""
        names = ("rows", "hidden", "code", "clip", "drift_ratio", "scaling", "centring")
        return {name: getattr(self, name) for name in names}

    def course(self) -> Course:
        """Return the part that decides a course over a replay."""
        names = ("factor", "follow_rows", "follow_below", "follow_gate", "leash", "release")
        return Course(**{name: getattr(self, name) for name in names})

    def mechanisms(self) -> int:
        """Return how many mechanisms are switched on."""
        on = (self.follow_rows is not None, self.dispersion, self.release < 1, self.drift_ratio is not None)
        return sum(on) + (self.spread != "whole" or self.wander_rows > 0)


START: Final = Options(rows=32, hidden=32, code=8, clip=4.0)
"""The network on which charts are compared."""
SECOND: Final = Options(
    rows=16,
    hidden=32,
    code=8,
    clip=4.0,
    dispersion=True,
    follow_rows=400.0,
    follow_below=1.0,
    follow_gate="each",
)
"""What the first two steps chose on SKAB: the third can begin there without half an hour of search."""


class Candidate(msgspec.Struct, frozen=True):
    """Options with what they reached: per family and drift F1, and FAR without a fault."""

    options: Options
    families: dict[str, Judged]

    def f1(self, only: str | None = None) -> float:
        """Return the mean F1 over families and drifts; over the drifts of the family ``only`` if it is there."""
        families = [self.families[only]] if only in self.families else list(self.families.values())
        values = [f1 for judged in families for f1 in judged.f1]
        return sum(values) / len(values)

    def far(self) -> float:
        """Return the largest FAR of a family on its rows as they are, per cent."""
        return max(judged.far_percent[0] for judged in self.families.values())

    def order(self, only: str | None = None) -> tuple[float, ...]:
        """Return the order of preference among equals, the smallest first."""
        o = self.options
        input_ = (o.centring != "fixed", o.scaling != "public")
        return (o.mechanisms(), o.rows, o.hidden, o.memory_rows, -o.factor, o.clip, *input_, -self.f1(only))


class Search:
    """Evaluates candidates on planted families, one network at a time."""

    def __init__(self, recipe: Recipe, job: Job, profile: DeviceProfile, families: Sequence[Planted]) -> None:
        self._recipe, self._job, self._profile, self._families = recipe, job, profile, families

    def step_one(self) -> list[Candidate]:
        """Return the candidates over everything that the chart may do, on the network of ``START``."""
        found: list[Candidate] = []
        for ratio in DRIFT_RATIOS:
            network = msgspec.structs.replace(START, drift_ratio=ratio)
            per_family = self.network(network, MEMORIES)
            for memory, (spread, wander), dispersion in itertools.product(MEMORIES, SPREADS, (False, True)):
                chart = msgspec.structs.replace(
                    network, memory_rows=memory, spread=spread, wander_rows=wander, dispersion=dispersion
                )
                found += self.evaluate(list(courses(chart)), [stats[memory] for stats in per_family])
        return found

    def step_two(self, chart: Options) -> list[Candidate]:
        """Return the candidates over windows, networks, clips, memories and factors, otherwise as ``chart``."""
        found: list[Candidate] = []
        for rows, (hidden, code), clip in itertools.product(ROWS, NETWORKS, CLIPS):
            network = msgspec.structs.replace(chart, rows=rows, hidden=hidden, code=code, clip=clip)
            per_family = self.network(network, MEMORIES)
            for memory in MEMORIES:
                variants = [msgspec.structs.replace(network, memory_rows=memory, factor=f) for f in FACTORS]
                found += self.evaluate(variants, [stats[memory] for stats in per_family])
        return found

    def step_three(self, base: Options) -> list[Candidate]:
        """Return the candidates over model input, memories, dispersion, following (or none) and factors."""
        found: list[Candidate] = []
        follow_rows = dict.fromkeys((base.follow_rows, None))
        for scaling, centring in itertools.product(SCALINGS, CENTRINGS):
            network = msgspec.structs.replace(base, scaling=scaling, centring=centring)
            per_family = self.network(network, MEMORIES)
            for memory, dispersion in itertools.product(MEMORIES, (False, True)):
                chart = msgspec.structs.replace(network, memory_rows=memory, dispersion=dispersion)
                variants = [
                    msgspec.structs.replace(chart, follow_rows=follow, factor=factor)
                    for follow, factor in itertools.product(follow_rows, FACTORS)
                ]
                found += self.evaluate(variants, [stats[memory] for stats in per_family])
        return found

    def network(self, options: Options, memories: Sequence[float]) -> list[dict[float, Statistics]]:
        """Return per family the statistics of the networks that ``options`` name."""
        parameters = self._recipe.check({**self._job.parameters, **options.network()})
        job = msgspec.structs.replace(self._job, parameters=parameters)
        return [statistics(self._recipe, job, data, self._profile, memories) for data in self._families]

    def evaluate(self, options: Sequence[Options], stats: Sequence[Statistics]) -> list[Candidate]:
        """Return candidates that differ in their course alone, given their network's statistics per family."""
        first, names = options[0], [data.family.name for data in self._families]
        judged = []
        for data, one in zip(self._families, stats, strict=True):
            fitted = fit_charts(one, first.spread, first.wander_rows, first.dispersion, QUANTILE)
            judged.append(count(alarms(fitted, [o.course() for o in options]), data))
        rates = zip(*judged, strict=True)
        return [
            Candidate(o, dict(zip(names, each, strict=True))) for o, each in zip(options, rates, strict=True)
        ]


def courses(base: Options) -> Iterable[Options]:
    """Yield ``base`` with every following, factor and deadband."""
    followings: list[dict[str, Any]] = [{"follow_rows": None}]
    for rows, below, gate, leash in itertools.product(FOLLOW_ROWS, FOLLOW_BELOW, FOLLOW_GATES, LEASHES):
        followings.append({"follow_rows": rows, "follow_below": below, "follow_gate": gate, "leash": leash})
    for following, factor, release in itertools.product(followings, FACTORS, RELEASES):
        yield msgspec.structs.replace(base, **following, factor=factor, release=release)


def choose(candidates: Sequence[Candidate], only: str | None = None) -> tuple[Candidate, float]:
    """Return the choice among ``candidates`` and the FAR limit, per cent, that it was made under.

    F1 is that of the family ``only``, if it is there; false alarms are limited in every family. Raises ValueError where
    no candidate has a false alarm rate.
    """
    limit = FAR_LIMIT
    if not any(one.far() <= _ALL_FALSE for one in candidates):
        raise ValueError(f"none of {len(candidates)} candidates has a false alarm rate")
    while not (allowed := [one for one in candidates if one.far() <= limit]):
        limit += FAR_STEP
    best = max(one.f1(only) for one in allowed)
    equal = [one for one in allowed if one.f1(only) >= best - TIE]
    return min(equal, key=lambda one: one.order(only)), limit
