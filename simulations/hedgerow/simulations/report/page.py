"""One self-contained page of a run: facts, privacy, plots, rounds. No script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from hedgerow.simulations.report.plots import Plot, plots_of, svg_of
from hedgerow.simulations.run.records import Result, RoundRecord
from hedgerow.simulations.run.words import summary_rows

MAX_ROWS: Final = 200
"""A longer run shows its first and last rounds; all of them are in the CSV."""

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #20302a; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 600; }
td, th { padding: .15rem .9rem .15rem 0; vertical-align: top; } .rounds td, .rounds th { font-variant-numeric: tabular-nums; }
.rounds tr { border-bottom: 1px solid #e3e8e5; } .rounds { display: block; overflow-x: auto; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; } figcaption { font-size: .85rem; color: #5f6b6d; }
.loud { color: #9a3412; font-weight: 600; }
"""


def page_of(result: Result) -> str:
    """Return the page, HTML 5 in UTF-8."""
    title = escape(f"{result.name}: simulation with engine {result.engine}")
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        f"<h1>{title}</h1>",
        f"<p>{escape(str(result.scenario.get('description', '')))}</p>",
        _facts(summary_rows(result)),
        "<h2>Privacy</h2>",
        _privacy(result),
        "<h2>Plots</h2>",
        f'<div class="plots">{"".join(_figure(plot) for plot in plots_of(result))}</div>',
        "<h2>Rounds</h2>",
        _rounds(result),
        "<h2>Where it came from</h2>",
        _facts(_origin(result)),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"


def _privacy(result: Result) -> str:
    privacy = result.privacy
    loud = f'<p class="loud">{escape(privacy.claim)}</p>' if privacy.mode != "none" else ""
    rows = [
        ("mode", privacy.mode),
        ("unit", privacy.unit),
        ("relation", privacy.relation),
        ("sampling", privacy.sampling),
        ("ε by PLD", _number(privacy.epsilon)),
        ("ε by RDP", _number(privacy.epsilon_rdp)),
        ("ε under replace-one", _number(privacy.epsilon_replace)),
        ("δ", _number(privacy.delta)),
        ("noise multiplier", _number(privacy.noise_multiplier)),
    ]
    known = [(name, value) for name, value in rows if value not in ("", "none")]
    notes = "".join(f"<li>{escape(note)}</li>" for note in privacy.notes)
    return f"{loud}{_facts(known or [('mode', 'none: ε is infinite')])}<ul>{notes}</ul>"


def _figure(plot: Plot) -> str:
    about = escape(plot.about)
    return f'<figure role="img" aria-label="{about}">{svg_of(plot)}<figcaption>{about}</figcaption></figure>'


def _rounds(result: Result) -> str:
    names = (
        "round",
        "drawn",
        "counted",
        result.metric,
        "loss",
        "ε",
        "MB up",
        "simulated s",
        "wall s",
        "events",
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rounds = result.rounds
    skipped = ""
    if len(rounds) > MAX_ROWS:
        rounds = (*rounds[: MAX_ROWS // 2], *rounds[-MAX_ROWS // 2 :])
        skipped = (
            f"<p>{len(result.rounds) - MAX_ROWS} rounds in the middle are left out; rounds.csv has all.</p>"
        )
    rows = "".join(_row(record, result.metric) for record in rounds)
    return f'{skipped}<table class="rounds"><tr>{head}</tr>{rows}</table>'


def _row(record: RoundRecord, metric: str) -> str:
    cells = (
        str(record.round),
        str(record.drawn),
        str(record.counted),
        _number(record.scores.get(metric)),
        _number(record.loss),
        _number(record.epsilon),
        f"{record.bytes_up / 1e6:.3g}",
        f"{record.simulated_s:.4g}",
        f"{record.wall_s:.3g}",
        "; ".join(record.events),
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _origin(result: Result) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {number}" for name, number in sorted(result.versions.items()))
    return [
        ("scenario", result.scenario_sha256),
        ("recipe", f"{result.recipe} {result.recipe_hash}"),
        ("model", result.model_sha256),
        ("seed", str(result.seed)),
        ("begun", result.started_at),
        ("versions", versions),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
