"""What the charges of a run add up to, device by device, and the ε of the device that paid most."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from hedgerow.shared import limits
from hedgerow.shared.errors import IntegrityError
from hedgerow.shared.privacy.accounting import Accountant, Relation, epsilon
from hedgerow.shared.privacy.events import CentralRounds, DpSgdSteps, PrivacyEvent, UnprotectedRelease
from hedgerow.simulations.run.curve import curve
from hedgerow.simulations.run.ledger import Charge

_Kind = tuple[type, float, float]
_MOST_STEPS = 2**40
"""Far above any run's steps, and far below where sums of 64 bits begin anew from below."""


class Spending:
    """Counts of each mechanism for each device, int64 ``(devices,)``."""

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._counts: dict[_Kind, npt.NDArray[np.int64]] = {}
        self.unprotected = False

    def add(self, charges: Iterable[Charge]) -> None:
        """Count ``charges``. Raises TypeError for an event that no simulated mechanism makes, IntegrityError for a device that there is not,
        or more times than any run has.
        """
        for charge in charges:
            match charge.event:
                case DpSgdSteps(sampling_rate=rate, noise_multiplier=noise, steps=count):
                    kind: _Kind = (DpSgdSteps, rate, noise)
                case CentralRounds(sampling_rate=rate, noise_multiplier=noise, rounds=count):
                    kind = (CentralRounds, rate, noise)
                case UnprotectedRelease():
                    self.unprotected = True
                    continue
                case _:
                    raise TypeError(f"no mechanism here makes {charge.event!r}")
            most = limits.MAX_ROUNDS if kind[0] is CentralRounds else _MOST_STEPS
            if count > most:
                raise IntegrityError(f"a charge of {count} times; a run has at most {most}")
            counts = self._counts.setdefault(kind, np.zeros(self._devices, np.int64))
            if charge.devices is None:
                counts += count
                continue
            if not all(0 <= device < self._devices for device in charge.devices):
                raise IntegrityError(f"a charge of device {max(charge.devices)}: there are {self._devices}")
            counts[np.array(charge.devices, np.int64)] += count

    def heaviest(self) -> list[tuple[PrivacyEvent, ...]]:
        """Return what those devices paid of which no other paid at least as much of everything."""
        if not self._counts:
            return []
        kinds = sorted(self._counts, key=repr)
        rows = np.unique(np.stack([self._counts[kind] for kind in kinds], axis=1), axis=0)
        top = [row for row in _undominated(rows) if row.any()]
        return [
            tuple(kind[0](*kind[1:], int(count)) for kind, count in zip(kinds, row, strict=True) if count)
            for row in top
        ]

    def epsilon_now(self, delta: float) -> float:
        """Return an upper bound of ε by PLD on the coarser grid, fast enough for every round."""
        return max((curve(events, delta) for events in self.heaviest()), default=0.0)

    def epsilon(
        self, delta: float, accountant: Accountant = "pld", relation: Relation = "add-remove"
    ) -> float:
        """Return ε of the device that paid most; by PLD on the finer grid where all devices paid the same, else on the coarser.

        Raises UnsupportedError where the accountant cannot tell.
        """
        heaviest = self.heaviest()
        if accountant == "pld" and len(heaviest) > 1:
            return max(curve(events, delta, relation) for events in heaviest)
        return max((epsilon(events, delta, accountant, relation) for events in heaviest), default=0.0)


def _undominated(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the rows above which no other row lies; ``rows`` ``(k, kinds)`` are distinct."""
    if int((rows > 0).sum(axis=1).max()) <= 1:  # the usual case: nobody paid for two mechanisms
        return list(np.diag(rows.max(axis=0)))
    return [row for row in rows if not ((rows >= row).all(axis=1) & (rows > row).any(axis=1)).any()]
