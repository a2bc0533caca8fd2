"""The residual chart over many replays and many options at once: what it says of every row, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.shared.scoring import chart
from hedgerow.simulations.bench.selection.statistics import Floats, Planted, Statistics

Flags = npt.NDArray[np.bool_]

CHUNK: Final = 32
"""Replays judged at once: few enough that a row of all courses stays in the processor's cache."""


@dataclass(frozen=True)
class ChartFit:
    """Deviations ``rest`` of the charts in units of normal spread, ``(replays, rows, charts)`` (0 where not watched;
    a chart that is watched in no replay is left out), and the quantile of normal scores per replay, ``(replays,)``.
    """

    rest: Floats
    limit: Floats


@dataclass(frozen=True)
class Course:
    """Options of one course over a replay; ``follow_rows`` None: what is normal stays where it was fitted."""

    factor: float = 1.0
    follow_rows: float | None = None
    follow_below: float = 0.5
    follow_gate: str = "all"
    leash: float = 3.0
    release: float = 1.0


def fit_charts(
    stats: Statistics, spread: str, wander_rows: float, dispersion: bool, quantile: float
) -> ChartFit:
    """Return every replay's charts as the device would fit them on the replay's fit rows."""
    n, seeds = stats.fit.shape[:2]
    channels = stats.drifting.shape[1]
    describe = chart.DESCRIBE[spread]
    used = 2 * channels if dispersion else channels
    rest = stats.rest[..., :used].copy()
    limit = np.empty(stats.rest.shape[:-2], np.float32)
    for i, s in np.ndindex(n, seeds):
        drifting = stats.drifting[i]
        watched = (~drifting | drifting.all()).astype(float)
        watched = np.concatenate([watched, watched])[:used]
        smoothed = stats.fit[i, s, :, :used]
        mean, sigma = describe(smoothed)
        wander = chart.wander_rate(smoothed) * wander_rows
        sigma = chart.widened(sigma, wander)
        scores = chart.cross_validated(smoothed, watched, describe, wander)
        limit[i, s] = np.quantile(scores, quantile)
        rest[i, s] = (rest[i, s] - mean) / sigma * watched
    seen = rest.any(axis=tuple(range(rest.ndim - 1)))
    return ChartFit(rest[..., seen].reshape(-1, rest.shape[-2], int(seen.sum())), limit.reshape(-1))


def alarms(fitted: ChartFit, courses: Sequence[Course]) -> Flags:
    """Return the alarm of every row, ``(courses, replays, rows)``: as ``Scorer.judge`` gives them row by row."""
    found = np.empty((len(courses), *fitted.rest.shape[:2]), np.bool_)
    kinds = [_kind(course) for course in courses]
    for kind in sorted(set(kinds)):
        at = [n for n, other in enumerate(kinds) if other == kind]
        some = [courses[n] for n in at]
        for start in range(0, len(fitted.rest), CHUNK):
            part = slice(start, start + CHUNK)
            piece = ChartFit(fitted.rest[part], fitted.limit[part])
            found[at, part] = _still(piece, some) if kind == "still" else _moving(piece, some, kind == "each")
    return found


def _kind(course: Course) -> str:
    if course.follow_rows is None:
        return "still" if course.release == 1 else "all"
    return course.follow_gate


def _still(fitted: ChartFit, courses: Sequence[Course]) -> Flags:
    score = np.abs(fitted.rest).max(axis=2)
    return np.stack([score > course.factor * fitted.limit[:, None] for course in courses])


def _moving(fitted: ChartFit, courses: Sequence[Course], each: bool) -> Flags:
    """Return ``alarms`` of courses that follow or hold; ``each`` channel by its own gate, or all by one."""
    replays, rows, charts = fitted.rest.shape

    def column(values: Sequence[float]) -> Floats:
        return np.array(values, np.float32)[:, None]

    threshold = column([course.factor for course in courses]) * fitted.limit
    release = column([course.release for course in courses]) * threshold
    gate = column([course.follow_below for course in courses]) * threshold
    rate = column([0.0 if c.follow_rows is None else min(1.0, 1 / c.follow_rows) for c in courses])
    leash = column([course.leash for course in courses])[..., None]
    deadband = column([float(course.release < 1) for course in courses]) > 0
    moved = np.zeros((len(courses), replays, charts), np.float32)
    on = np.zeros((len(courses), replays), np.bool_)
    found = np.empty((len(courses), replays, rows), np.bool_)
    for row in range(rows):
        apart = fitted.rest[:, row] - moved
        far = np.abs(apart)
        score = far.max(axis=2)
        found[:, :, row] = (score > threshold) | (on & (score > release))
        on = found[:, :, row] & deadband
        if each:
            apart *= far < gate[..., None]
            apart *= rate[..., None]
        else:
            apart *= (rate * (~on & (score < gate)))[..., None]
        moved += apart
        np.clip(moved, -leash, leash, out=moved)
    return found


@dataclass(frozen=True)
class Judged:
    """Of one family, per drift: F1 over the replays with faults, and FAR in per cent over those without."""

    f1: tuple[float, ...]
    far_percent: tuple[float, ...]


def count(found: Flags, data: Planted) -> list[Judged]:
    """Return the rates per course of alarms ``(courses, replays, rows)``."""
    n, seeds, drifts, each, rows, _ = data.rest.shape
    alarm = found.reshape(len(found), n, seeds, drifts, each, rows)
    labels = data.labels[:, :, None]
    hits = (alarm & labels)[..., 1:, :].sum(axis=(1, 2, 4, 5))
    said = alarm[..., 1:, :].sum(axis=(1, 2, 4, 5))
    faulty = int(data.labels.sum())
    far = 100 * alarm[..., 0, :].mean(axis=(1, 2, 4))
    f1 = 2 * hits / np.maximum(said + faulty, 1)
    return [Judged(tuple(a.tolist()), tuple(b.tolist())) for a, b in zip(f1, far, strict=True)]
