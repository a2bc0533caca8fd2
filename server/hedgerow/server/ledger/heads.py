"""Does a device's ledger go forward? A pure rule over the last head it committed and the one it shows now.

A device's ledger is durable and append-only: it reserves before it trains, so that it is longer with every round, and
its ε never falls. One that did not grow trained without charging, one that shrank was restored from a backup. Either way
its ε is no longer an upper bound, and its updates no longer count in the job.
"""

from __future__ import annotations

import msgspec

_SLACK = 1e-9


class Claim(msgspec.Struct, frozen=True):
    """What a device commits to with one update of ``round``: its ledger's hash, its entries, the (ε, δ) it states."""

    round: int
    head: str
    length: int
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
    if shown.length < known.length:
        raise LedgerRegressedError(
            f"the ledger had {known.length} entries in round {known.round} and has {shown.length} in round {shown.round}"
        )
    if shown.round > known.round and (shown.length == known.length or shown.head == known.head):
        raise LedgerRegressedError(
            f"the ledger of round {shown.round} is that of round {known.round}: nothing was charged in between"
        )
