"""What can go wrong with the pump: each fault acts on the physics or on one sensor, growing over its onset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Kind = Literal["bearing", "cavitation", "valve", "supply", "stuck-sensor"]


@dataclass(frozen=True)
class Fault:
    """One fault: it starts at row ``start``, grows linearly over ``onset_rows``, ends before row ``stop`` (None: never).

    ``planted`` is the channel nearest to the cause: an explanation that is right names it first. ``severity`` scales
    the effect; at 1 the machine still runs, and an operator would want to know.
    """

    kind: Kind
    planted: str
    start: int = 0
    stop: int | None = None
    onset_rows: int = 10
    severity: float = 1.0

    def level(self, row: int) -> float:
        """Return how far the fault has grown at ``row``, 0 to ``severity``."""
        if row < self.start or (self.stop is not None and row >= self.stop):
            return 0.0
        return self.severity * min(1.0, (row - self.start + 1) / max(1, self.onset_rows))

    def at(self, start: int, stop: int | None = None) -> Fault:
        """Return the same fault placed at rows ``start`` to ``stop``."""
        return replace(self, start=start, stop=stop)


FAULTS: Final[dict[str, Fault]] = {
    "bearing": Fault("bearing", "vibration-2"),
    "cavitation": Fault("cavitation", "vibration-1"),
    "valve": Fault("valve", "flow"),
    "supply": Fault("supply", "voltage"),
    "stuck-sensor": Fault("stuck-sensor", "pressure"),
}
"""One of each kind, starting at row 0. A bearing shakes its own end of the shaft (sensor 2), drags on the motor and
warms it; cavitation shakes the inlet (sensor 1), costs head and makes the flow flutter; a closing valve throttles the
flow and raises the pressure; a weak supply lowers the voltage and raises the current; a stuck sensor repeats a value
far from where the process is."""

DEFAULT_FAULT: Final = FAULTS["bearing"]
"""The demo's fault."""
