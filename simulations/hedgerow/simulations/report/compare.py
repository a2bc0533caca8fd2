"""Two runs side by side: what differs in the scenario, and how far apart they came out."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hedgerow.simulations.run.records import Result

_DRAWN = frozenset({"csv", "idx", "images", "npz", "sklearn"})
"""Sources without a public set: what they hold out is drawn by the scenario's seed."""


class Difference(msgspec.Struct, frozen=True):
    """One setting that differs, by its dotted path; None where a run does not have it."""

    path: str
    first: Any
    second: Any


class Measure(msgspec.Struct, frozen=True):
    """One figure of both runs. ``difference`` is second − first, None unless both are known."""

    name: str
    first: float | None
    second: float | None
    difference: float | None


class Comparison(msgspec.Struct, frozen=True):
    """``comparable`` says that recipe, parameters and the held-out set are the same, so that scores may be compared."""

    first: str
    second: str
    same_scenario: bool
    same_model: bool
    comparable: bool
    differences: tuple[Difference, ...]
    measures: tuple[Measure, ...]


def compare(first: Result, second: Result) -> Comparison:
    """Return the comparison of two results."""
    return Comparison(
        first=first.folder or first.name,
        second=second.folder or second.name,
        same_scenario=first.scenario_sha256 == second.scenario_sha256,
        same_model=first.model_sha256 == second.model_sha256,
        comparable=_judged_alike(first, second),
        differences=tuple(_differences(_told(first), _told(second), "")),
        measures=tuple(_measures(first, second)),
    )


def print_comparison(found: Comparison) -> None:
    """Print a comparison as tables."""
    console = Console()
    console.print(f"A  {found.first}\nB  {found.second}", highlight=False, markup=False)
    if found.same_model:
        console.print("the models are the same, bit by bit")
    elif not found.comparable:
        console.print("the runs are judged differently: their scores cannot be compared", style="bold")
    figures = Table("", "A", "B", "B − A", box=None, pad_edge=False)
    for row in found.measures:
        figures.add_row(Text(row.name), _number(row.first), _number(row.second), _number(row.difference))
    console.print(figures)
    if found.differences:
        settings = Table("differs in", "A", "B", box=None, pad_edge=False)
        for one in found.differences:
            settings.add_row(*(Text(text) for text in (one.path, _value(one.first), _value(one.second))))
        console.print(settings)


def _told(result: Result) -> dict[str, Any]:
    kept = {key: value for key, value in result.scenario.items() if key not in ("name", "description")}
    return {**kept, "engine": result.engine, "choices": result.choices, "versions": result.versions}


def _judged_alike(first: Result, second: Result) -> bool:
    def judged(result: Result) -> tuple[Any, ...]:
        population = result.scenario.get("population", {})
        source = [population.get(key) for key in ("source", "path", "options", "profile")]
        return result.recipe_hash, result.scenario.get("job", {}).get("parameters"), source, result.metric

    return judged(first) == judged(second) and _same_held_out(first, second)


def _same_held_out(first: Result, second: Result) -> bool:
    """Tell whether runs of one source were judged on the same examples: some sources draw those by the scenario's seed."""
    if first.seed == second.seed or first.scenario.get("population", {}).get("source") not in _DRAWN:
        return True
    # Files may bring their own test set: then the same untrained model scored the same on it.
    model = [result.scenario.get("job", {}).get("seed") for result in (first, second)]
    return model[0] == model[1] and first.initial_scores == second.initial_scores != {}


def _differences(first: Any, second: Any, path: str) -> list[Difference]:
    if isinstance(first, dict) and isinstance(second, dict):
        found = []
        for key in sorted({*first, *second}):
            found += _differences(first.get(key), second.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if first == second else [Difference(path, first, second)]


def _measures(first: Result, second: Result) -> list[Measure]:
    same = second.metric == first.metric
    rows: list[tuple[str, float | None, float | None]] = [
        (f"{first.metric}, last", first.score, second.score if same else None),
        ("ε by PLD", first.privacy.epsilon, second.privacy.epsilon),
        ("rounds", len(first.rounds), len(second.rounds)),
        ("bytes up", _total(first, "bytes_up"), _total(second, "bytes_up")),
        ("bytes down", _total(first, "bytes_down"), _total(second, "bytes_down")),
        ("energy, J", _total(first, "energy_j"), _total(second, "energy_j")),
        ("simulated s", _last(first, "simulated_s"), _last(second, "simulated_s")),
        ("wall s", first.wall_s, second.wall_s),
        ("first round after, s", first.first_round_s, second.first_round_s),
    ]
    for name, at in (("devices, 10 %", 0), ("devices, median", 1), ("devices, 90 %", 2)):
        rows.append((name, _quantile(first, at), _quantile(second, at) if same else None))
    return [
        Measure(name, a, b, None if a is None or b is None else b - a)
        for name, a, b in rows
        if a is not None or b is not None
    ]


def _total(result: Result, name: str) -> float:
    return float(sum(getattr(record, name) for record in result.rounds))


def _last(result: Result, name: str) -> float | None:
    return float(getattr(result.rounds[-1], name)) if result.rounds else None


def _quantile(result: Result, index: int) -> float | None:
    for record in reversed(result.rounds):
        if record.device_quantiles is not None:
            return record.device_quantiles[index]
    return None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.5g}"


def _value(value: Any) -> str:
    return "–" if value is None else str(value)
