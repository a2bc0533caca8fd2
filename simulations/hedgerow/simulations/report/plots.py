"""Plots of a run, drawn without a display and without matplotlib's global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hedgerow.simulations.report import series
from hedgerow.simulations.report.series import Line
from hedgerow.simulations.run.records import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Final = ("#1f6f54", "#c8642a", "#3b5b92", "#8a4f7d", "#7a7a2e", "#5f6b6d")
_SIZE: Final = (6.4, 3.6)
_BINS: Final = 20
_MARKED: Final = 40
"""Curves of up to so many points show each of them."""


class Plot(NamedTuple):
    """One picture: the file's name without its ending, a title, and what it shows in a sentence (for those who cannot see it)."""

    name: str
    title: str
    about: str
    draw: Callable[[Axes], None]


def plots_of(result: Result) -> list[Plot]:
    """Return the plots that this run has something to show in."""
    found = [_score(result), _loss(result), _cohorts(result), _epsilon(result), _bytes(result), _time(result)]
    return [plot for plot in (*found, _histogram(result)) if plot is not None]


def figure_of(plot: Plot) -> Figure:
    """Return the plot as a figure."""
    import matplotlib
    from matplotlib.figure import Figure

    # Names come from people's files: a dollar sign in one begins no formula.
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(plot.title, loc="left", fontsize=11)
        axes.grid(visible=True, alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        plot.draw(axes)
        if len(axes.get_legend_handles_labels()[1]) > 1:
            axes.legend(frameon=False, fontsize=9)
    return figure


def png_of(plot: Plot) -> bytes:
    """Return the plot as a PNG; the same run gives the same bytes with the same matplotlib."""
    buffer = io.BytesIO()
    figure_of(plot).savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def svg_of(plot: Plot) -> str:
    """Return the plot as an ``svg`` element for a page."""
    import matplotlib

    buffer = io.StringIO()
    # Without a salt the ids in the file are random; text stays text, so that a reader can find and enlarge it.
    with matplotlib.rc_context({"svg.hashsalt": plot.name, "svg.fonttype": "none"}):
        figure_of(plot).savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def lines_on(lines: Sequence[Line], x_label: str, y_label: str) -> Callable[[Axes], None]:
    """Return a drawing of curves, with their bands."""

    def draw(axes: Axes) -> None:
        for number, line in enumerate(lines):
            colour = COLOURS[number % len(COLOURS)]
            marker = "o" if len(line.x) <= _MARKED else ""
            axes.plot(line.x, line.y, label=line.label, color=colour, marker=marker, markersize=3)
            if line.low:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    return draw


def _score(result: Result) -> Plot | None:
    lines = series.score_lines(result)
    if not lines:
        return None
    about = f"{result.metric} by round: {_ends(lines[0])}."
    return Plot("score", result.metric, about, lines_on(lines, "round", result.metric))


def _loss(result: Result) -> Plot | None:
    line = series.loss_line(result)
    if not line.x:
        return None
    return Plot(
        "loss",
        "training loss on the devices",
        f"mean training loss by round: {_ends(line)}.",
        lines_on([line], "round", "loss"),
    )


def _cohorts(result: Result) -> Plot | None:
    lines = [line for line in series.cohort_lines(result) if line.x]
    if not lines:
        return None
    about = "; ".join(f"{line.label}: {_ends(line)}" for line in lines) + "."
    return Plot("cohorts", f"{result.metric} by cohort", about, lines_on(lines, "round", result.metric))


def _epsilon(result: Result) -> Plot | None:
    line = series.epsilon_line(result)
    if not line.x:
        return None
    about = f"ε spent by round: {_ends(line)}. {result.privacy.claim}."
    return Plot("epsilon", f"ε spent ({result.privacy.claim})", about, lines_on([line], "round", "ε"))


def _bytes(result: Result) -> Plot | None:
    lines = series.byte_lines(result)
    if not lines[0].x:
        return None
    about = f"megabytes of all devices since the begin: {lines[0].y[-1]:.4g} up, {lines[1].y[-1]:.4g} down."
    return Plot("bytes", "bytes of all devices", about, lines_on(lines, "round", "MB since the begin"))


def _time(result: Result) -> Plot | None:
    line, unit = series.score_over_time(result)
    if not line.x or line.x[-1] <= 0:
        return None
    about = f"{result.metric} over simulated time: {_ends(line)} after {line.x[-1]:.4g} {unit}."
    title = f"{result.metric} over simulated time"
    return Plot("time", title, about, lines_on([line], f"simulated {unit}", result.metric))


def _histogram(result: Result) -> Plot | None:
    scores = series.device_scores(result)
    if not scores:
        return None

    def draw(axes: Axes) -> None:
        axes.hist(scores, bins=_BINS, color=COLOURS[0], edgecolor="white")
        axes.set_xlabel(f"{result.metric} on the device's own held-out examples")
        axes.set_ylabel("devices")

    about = f"last score of {len(scores)} devices, from {min(scores):.4g} to {max(scores):.4g}."
    return Plot("devices", "devices by their last score", about, draw)


def _ends(line: Line) -> str:
    return f"{line.y[0]:.4g} at first, {line.y[-1]:.4g} at last"
