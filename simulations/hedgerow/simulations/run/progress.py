"""Live progress: a bar on a terminal, plain lines elsewhere. It never starts a thread: workers are forked beside it."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hedgerow.simulations.run.records import RoundRecord
from hedgerow.simulations.run.words import duration, round_parts

_BAR = 24
_LEAST_GAP_S = 0.1
_LINE_GAP_S = 1.0
_WINDOW = 20


class Progress(Protocol):
    """Tells of rounds while used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def round(self, record: RoundRecord) -> None:
        """Tell of a round that ended."""

    def note(self, text: str) -> None:
        """Tell something on a line of its own."""


class Pace:
    """How fast rounds come, over the last few of them."""

    def __init__(self, clock: float) -> None:
        self._ends: deque[float] = deque([clock], maxlen=_WINDOW + 1)

    def told(self, clock: float, left: int) -> str:
        """Return rate and time left after a round that ended at ``clock`` (monotonic)."""
        self._ends.append(clock)
        took = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        rate = f"{1 / took:.3g} rounds/s" if 0 < took < 1 else f"{took:.3g} s/round"
        return f"{rate}, {duration(took * left)} left"


class Silence:
    """Tells nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def round(self, record: RoundRecord) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


class Lines(Silence):
    """A line a round, at most about one a second, and always the last."""

    def __init__(self, console: Console, rounds: int, metric: str) -> None:
        self._console = console
        self._rounds = rounds
        self._metric = metric
        self._pace = Pace(time.monotonic())
        self._told = float("-inf")

    def round(self, record: RoundRecord) -> None:
        """Print the round unless another was printed just now."""
        now = time.monotonic()
        pace = self._pace.told(now, self._rounds - record.round)
        if now - self._told < _LINE_GAP_S and record.round < self._rounds:
            return
        self._told = now
        self.note("  ".join([*round_parts(record, self._rounds, self._metric), pace]))

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bar(Silence):
    """A bar and two lines that are written over, drawn when a round ends and by nobody else."""

    def __init__(self, console: Console, rounds: int, metric: str) -> None:
        self._rounds = rounds
        self._metric = metric
        self._pace = Pace(time.monotonic())
        self._drawn = float("-inf")
        self._live = Live(Text("starting"), console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def round(self, record: RoundRecord) -> None:
        """Draw the round unless another was drawn just now."""
        now = time.monotonic()
        pace = self._pace.told(now, self._rounds - record.round)
        if now - self._drawn < _LEAST_GAP_S and record.round < self._rounds:
            return
        self._drawn = now
        self._live.update(self.text(record, pace), refresh=True)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._live.console.print(text, markup=False, highlight=False)

    def text(self, record: RoundRecord, pace: str) -> Text:
        """Return what is drawn."""
        done = round(_BAR * record.round / self._rounds)
        first, *rest = round_parts(record, self._rounds, self._metric)
        text = Text("█" * done, style="green")
        text.append("░" * (_BAR - done), style="dim")
        text.append(f" {first}  {pace}\n", style="bold")
        return text.append("  ".join(rest))


def progress_on(console: Console, rounds: int, metric: str, quiet: bool) -> Progress:
    """Return what suits the console."""
    if quiet:
        return Silence()
    return Bar(console, rounds, metric) if console.is_terminal else Lines(console, rounds, metric)
