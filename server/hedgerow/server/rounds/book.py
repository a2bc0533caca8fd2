"""Who owes, who answered, who was refused and why: the books of one exchange."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import msgspec

from hedgerow.server.rounds.link import Reply
from hedgerow.shared.errors import UpdateRejectedError


class Contribution(msgspec.Struct, frozen=True):
    """What one device did in one exchange: ``counted``, ``rejected``, ``declined`` (its own error) or ``missing``.

    ``reason`` is a reject code or the device's error. With privacy, ``n_samples`` stays None.
    """

    device: str
    outcome: str
    reason: str = ""
    n_bytes: int = 0
    n_samples: int | None = None
    ledger_head: str | None = None
    epsilon: float | None = None
    delta: float | None = None


class Book:
    """Keeps each device's first answer; everything after it is refused with a reason."""

    def __init__(self, cohort: Iterable[str]) -> None:
        self.cohort = frozenset(cohort)
        self.messages: dict[str, str] = {}
        self.contributions: dict[str, Contribution] = {}
        self.strays: Counter[str] = Counter()
        self.bytes_up = 0
        self.outcomes: Counter[str] = Counter()
        self._owing = set(self.cohort)

    @property
    def owing(self) -> AbstractSet[str]:
        """Devices of the cohort without an answer."""
        return self._owing

    @property
    def counted(self) -> int:
        """How many updates count."""
        return self.outcomes["counted"]

    def admit(self, reply: Reply) -> None:
        """Check that this reply may be looked at.

        Raises UpdateRejectedError: ``unexpected`` from outside the cohort, ``duplicate`` after a first answer, ``stale`` for
        a message that this exchange did not send.
        """
        if reply.device not in self.cohort:
            raise UpdateRejectedError("unexpected", f"{reply.device} is not in this round's cohort")
        if self.messages.get(reply.device) != reply.message_id:
            raise UpdateRejectedError(
                "stale", f"{reply.device} answers a message that is no longer waited for"
            )
        if reply.device in self.contributions:
            raise UpdateRejectedError("duplicate", f"{reply.device} has already answered")

    def settle(self, contribution: Contribution) -> None:
        """Record a device's answer. Raises ValueError for a second one."""
        if contribution.device in self.contributions or contribution.device not in self.cohort:
            raise ValueError(f"{contribution.device} cannot be settled twice or from outside the cohort")
        self.contributions[contribution.device] = contribution
        self.outcomes[contribution.outcome] += 1
        self._owing.discard(contribution.device)

    def close(self) -> list[str]:
        """Mark the devices that still owe as missing and return their messages' ids."""
        left = sorted(self._owing)
        for device in left:
            self.settle(Contribution(device, "missing"))
        return [self.messages[device] for device in left if device in self.messages]

    def rejections(self) -> dict[str, int]:
        """Return how many replies were refused, by reason, strays included."""
        by_reason = Counter(c.reason for c in self.contributions.values() if c.outcome == "rejected")
        return dict(sorted((by_reason + self.strays).items()))
