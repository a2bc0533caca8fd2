"""Mode ``none``: no privacy, said loudly."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hedgerow.shared.job import PrivacySpec
from hedgerow.shared.privacy.events import UnprotectedRelease
from hedgerow.shared.privacy.report import privacy_report
from hedgerow.simulations.run.ledger import Charge
from hedgerow.simulations.run.mechanism import Doubles, Noised, Terms
from hedgerow.simulations.run.records import PrivacySummary
from hedgerow.simulations.run.spending import Spending


class NoPrivacy:
    """Sums pass unchanged, ε is infinite."""

    mode = "none"
    uniform = False

    def initial(self) -> bytes:
        """Return no state."""
        return b""

    def terms(self, device: int) -> Terms:
        """Return terms without privacy."""
        del device
        return Terms()

    def charges(self, round: int, trained: Sequence[int]) -> tuple[Charge, ...]:
        """Return one release without noise, in the first round: no later one makes it worse."""
        del trained
        return (Charge(UnprotectedRelease("model updates")),) if round == 1 else ()

    def release(self, round: int, total: Doubles, weight: float, state: bytes) -> Noised:
        """Return the sum itself."""
        del round
        return Noised(total, weight, state)

    def epsilon(self, spending: Spending) -> None:
        """Return None: ε is infinite from the start."""
        del spending

    def summary(self, spending: Spending) -> PrivacySummary:
        """Return that there is no privacy, in the fleet's words."""
        del spending
        report = privacy_report(PrivacySpec(mode="none"))
        return PrivacySummary(
            mode="none",
            claim="none",
            unit=report.unit,
            relation=report.relation,
            epsilon=None,
            epsilon_rdp=None,
            epsilon_replace=None,
            delta=None,
            noise_multiplier=None,
            sampling=report.sampling,
            notes=report.notes,
            report=msgspec.to_builtins(report),
        )
