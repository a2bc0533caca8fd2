"""A run's records as columns to draw: pure functions from a result to numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from hedgerow.simulations.run.records import Result, RoundRecord
from hedgerow.simulations.run.words import MAX_COHORTS

MEGABYTE = 1e6


class Line(NamedTuple):
    """One curve: ``x`` and ``y`` of the same length, what is not known left out. ``low`` and ``high`` bound a band, or are empty."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def score_lines(result: Result) -> list[Line]:
    """Return the central score by round, from the untrained model on, and the devices' own with its spread (10 to 90 %)."""
    metric = result.metric
    central = known(result, "held-out set", lambda record: record.scores.get(metric))
    if metric in result.initial_scores:
        central = Line(central.label, (0.0, *central.x), (result.initial_scores[metric], *central.y))
    lines = [central] if central.x else []
    rows = [record for record in result.rounds if record.device_quantiles is not None]
    if rows:
        quantiles = [record.device_quantiles or (0.0, 0.0, 0.0) for record in rows]
        lines.append(
            Line(
                "devices: median, 10 to 90 %",
                tuple(float(record.round) for record in rows),
                tuple(q[1] for q in quantiles),
                tuple(q[0] for q in quantiles),
                tuple(q[2] for q in quantiles),
            )
        )
    return lines


def cohort_lines(result: Result) -> list[Line]:
    """Return the mean score of each cohort by round; of more than can be told apart the ends and the middle."""
    names = sorted({name for record in result.rounds for name in record.cohorts})
    if len(names) > MAX_COHORTS:
        return _many_cohorts(result, len(names))
    return [known(result, name, lambda record, name=name: record.cohorts.get(name)) for name in names]  # type: ignore[misc]


def _many_cohorts(result: Result, count: int) -> list[Line]:
    """Return the median over cohorts with its spread (10 to 90 %), and the cohorts that are lowest and highest at last."""
    rows = [record for record in result.rounds if record.cohorts]
    last = rows[-1].cohorts
    order = sorted(last, key=lambda name: last[name])
    low, middle, high = np.array(
        [np.quantile(list(record.cohorts.values()), (0.1, 0.5, 0.9)) for record in rows]
    ).T.tolist()
    x = tuple(float(record.round) for record in rows)
    label = f"{count} cohorts: median, 10 to 90 %"
    return [
        Line(label, x, tuple(middle), tuple(low), tuple(high)),
        *(
            known(result, f"{which}: {name}", lambda record, name=name: record.cohorts.get(name))  # type: ignore[misc]
            for which, name in (("lowest", order[0]), ("highest", order[-1]))
        ),
    ]


def loss_line(result: Result) -> Line:
    """Return the training loss by round; empty where it is withheld."""
    return known(result, "training loss", lambda record: record.loss)


def epsilon_line(result: Result) -> Line:
    """Return ε spent by round; empty without privacy."""
    return known(result, "ε spent", lambda record: record.epsilon)


def byte_lines(result: Result) -> list[Line]:
    """Return megabytes up and down since the begin, over all devices."""
    x = tuple(float(record.round) for record in result.rounds)
    up = accumulate(record.bytes_up for record in result.rounds)
    down = accumulate(record.bytes_down for record in result.rounds)
    return [
        Line("up", x, tuple(n / MEGABYTE for n in up)),
        Line("down", x, tuple(n / MEGABYTE for n in down)),
    ]


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit, and how many seconds it has, in which people would say ``seconds``."""
    if seconds < 120:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 7200 else ("hours", 3600.0)


def score_over_time(result: Result) -> tuple[Line, str]:
    """Return the central score over the simulated time that it took, and the unit of that time."""
    metric = result.metric
    rows = [record for record in result.rounds if metric in record.scores]
    unit, size = time_unit(rows[-1].simulated_s if rows else 0.0)
    line = Line(
        "held-out set",
        tuple(record.simulated_s / size for record in rows),
        tuple(record.scores[metric] for record in rows),
    )
    return line, unit


def device_scores(result: Result) -> list[float]:
    """Return the last score of each device that has a finite one: a model that fell apart may leave none."""
    scores = (record.score for record in result.device_records)
    return [score for score in scores if score is not None and math.isfinite(score)]


def known(result: Result, label: str, value: Callable[[RoundRecord], float | None]) -> Line:
    """Return a curve of the rounds for which ``value`` is known."""
    found = [(float(record.round), value(record)) for record in result.rounds]
    rows = [(x, y) for x, y in found if y is not None]
    return Line(label, tuple(x for x, _ in rows), tuple(y for _, y in rows))
