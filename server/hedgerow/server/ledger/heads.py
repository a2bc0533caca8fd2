"""Does a device's ledger go forward? A pure rule over the last head it committed and the one it shows now.

A device's ledger reserves before it trains and is durable, so that its head moves with every update and its ε never
falls. One that shows the old head again in a later round trained without charging; one whose ε fell was restored from
a backup. Either way its ε is no longer an upper bound, and its updates no longer count in the job.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_SLACK = 1e-9


class Claim(msgspec.Struct, frozen=True):
    """What a device commits to with one update of ``round``: its ledger's hash and the (ε, δ) it states."""

    round: int
    head: Annotated[str, Meta(max_length=64)]
    epsilon: float
    delta: float


class LedgerRegressedError(Exception):
    """A device shows an older ledger than the one it committed to."""


def check_forward(known: Claim | None, shown: Claim) -> None:
    """Raise LedgerRegressedError, saying how, unless ``shown`` may follow ``known``.

    The same round again may show the same head: a server that died before its commit asks twice.
    """
    if known is None:
        return
    if shown.epsilon < known.epsilon - _SLACK:
        raise LedgerRegressedError(
            f"ε fell from {known.epsilon:.6g} (round {known.round}) to {shown.epsilon:.6g} (round {shown.round})"
        )
    if shown.head == known.head and shown.round > known.round:
        raise LedgerRegressedError(
            f"round {shown.round} shows the ledger head of round {known.round}: nothing was charged in between"
        )
