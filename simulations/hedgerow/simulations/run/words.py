"""Numbers of a run in the words of its progress and its table: pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from hedgerow.simulations.run.records import WITHHELD, PrivacySummary, Result, RoundRecord
from hedgerow.simulations.run.sweep import Trial

MAX_COHORTS = 30
"""More are told, and drawn, as their lowest, their middle and their highest."""
_SIZES = ("B", "kB", "MB", "GB", "TB")


def bytes_of(count: float) -> str:
    """Return a number of bytes with three figures."""
    at = 0
    while count >= 999.5 and at < len(_SIZES) - 1:
        count, at = count / 1000, at + 1
    return f"{count:.3g} {_SIZES[at]}"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def epsilon_of(record: RoundRecord) -> str:
    """Return ε so far; infinite without privacy."""
    return "∞" if record.epsilon is None else f"{record.epsilon:.3g}"


def round_parts(record: RoundRecord, rounds: int, metric: str) -> list[str]:
    """Return what one line says of a round: score, loss, ε, devices, bytes, simulated time, and what went wrong."""
    parts = [f"round {record.round}/{rounds}"]
    if metric in record.scores:
        parts.append(f"{metric} {record.scores[metric]:.4g}")
    if record.loss is not None:
        parts.append(f"loss {record.loss:.4g}")
    parts.append(f"ε {epsilon_of(record)}")
    shown = WITHHELD not in record.events
    if shown:
        parts.append(f"{record.counted}/{record.drawn} devices")
    if record.staleness is not None:
        parts.append(f"{record.staleness:.2g} versions behind")
    if shown:
        parts.append(f"{bytes_of(record.bytes_up)} up, {bytes_of(record.bytes_down)} down")
    parts.append(f"{duration(record.simulated_s)} simulated")
    parts += [f"{count} {reason}" for reason, count in record.rejected.items()]
    return parts + list(record.events)


def summary_rows(result: Result) -> list[tuple[str, str]]:
    """Return the rows of the table at the end."""
    rounds = result.rounds
    rows = [
        ("scenario", f"{result.name}, {result.devices} devices, {result.n_parameters} parameters"),
        ("engine", _engine(result)),
        ("rounds", f"{len(rounds)} {result.state}"),
    ]
    if result.score is not None:
        before = result.initial_scores.get(result.metric)
        rows.append(
            (result.metric, f"{result.score:.4g}" + ("" if before is None else f", untrained {before:.4g}"))
        )
    last = rounds[-1] if rounds else None
    if last is not None and last.device_quantiles is not None:
        low, middle, high = last.device_quantiles
        rows.append(("over devices", f"10 % {low:.4g}, median {middle:.4g}, 90 % {high:.4g}"))
    if last is not None and last.cohorts:
        rows.append(("by cohort", cohorts_line(last.cohorts)))
    rows.append(("privacy", privacy_line(result.privacy)))
    up, down = sum(r.bytes_up for r in rounds), sum(r.bytes_down for r in rounds)
    rows.append(("bytes", f"{bytes_of(up)} up, {bytes_of(down)} down"))
    if last is not None:
        energy = sum(r.energy_j for r in rounds)
        rows.append(("simulated", f"{duration(last.simulated_s)}, {energy:.3g} J on the devices"))
    rows.append(("took", _took(result)))
    rows.append(("model", result.model_sha256[:16]))
    return rows


def cohorts_line(cohorts: Mapping[str, float]) -> str:
    """Return the score of each cohort, or of the ends and the middle where there are too many to read."""
    if len(cohorts) <= MAX_COHORTS:
        return ", ".join(f"{name} {score:.4g}" for name, score in cohorts.items())
    order = sorted(cohorts, key=lambda name: cohorts[name])
    middle = statistics.median(cohorts.values())
    low, high = order[0], order[-1]
    return f"{len(order)}: from {low} {cohorts[low]:.4g} by median {middle:.4g} to {high} {cohorts[high]:.4g}"


def trial_row(trial: Trial) -> list[str]:
    """Return a trial of a sweep as a row of a table."""
    score = "fell apart" if trial.failed else "–" if trial.score is None else f"{trial.score:.4g}"
    epsilon = "∞" if trial.epsilon is None else f"{trial.epsilon:.3g}"
    return [
        str(trial.number),
        *(str(value) for value in trial.values.values()),
        str(trial.rounds),
        score,
        epsilon,
    ]


def privacy_line(privacy: PrivacySummary) -> str:
    """Return what may be said of privacy in one line, its claim first."""
    if privacy.epsilon is None:
        return "none: ε is infinite"
    line = f"{privacy.claim}: ε {privacy.epsilon:.4g} at δ {privacy.delta:g} ({privacy.mode})"
    if privacy.epsilon_replace is not None:
        line += f", {privacy.epsilon_replace:.4g} under replace"
    return line


def _engine(result: Result) -> str:
    chosen = ", ".join(f"{key} {value}" for key, value in sorted(result.choices.items()))
    return result.engine + (f" ({chosen})" if chosen else "")


def _took(result: Result) -> str:
    line = f"{duration(result.wall_s)}; first round after {duration(result.first_round_s)}"
    times = sorted(record.wall_s for record in result.rounds)
    return line + (f", median {duration(times[len(times) // 2])} a round" if times else "")
