"""The hash chain over a job's charges: its end stands in the report of the model, and commits to everything charged.

Whoever has the database and the manifest can recompute it; a charge that was changed, taken out or put in shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from hedgerow.server.ledger.budget import Account
from hedgerow.shared.errors import IntegrityError

_DOMAIN = b"hedgerow-central-ledger-1\0"


class Charged(NamedTuple):
    """One charge as the database holds it."""

    round: int
    epsilon: float | None
    model_sha256: str
    hash: str


def opening_hash(account: Account) -> str:
    """Return the chain's beginning: of the frozen devices, the plan and what was spent before."""
    return _hash(
        "",
        account.job_id,
        account.devices,
        account.plan,
        account.earlier,
        account.earlier_unprotected,
    )


def charge_hash(previous: str, round: int, epsilon: float | None, model_sha256: str) -> str:
    """Return the hash of a charge after ``previous``."""
    return _hash(previous, round, epsilon, model_sha256)


def verify_chain(account: Account, charges: Iterable[Charged]) -> str:
    """Return the end of the chain over ``charges``, in order of rounds. Raises IntegrityError naming the first that is off."""
    head = opening_hash(account)
    for expected, charged in enumerate(charges, start=1):
        head = charge_hash(head, charged.round, charged.epsilon, charged.model_sha256)
        if charged.round != expected or charged.hash != head:
            raise IntegrityError(f"the privacy ledger of job {account.job_id} is altered at round {expected}")
    return head


def _hash(previous: str, *values: object) -> str:
    return hashlib.sha256(_DOMAIN + previous.encode() + b"\0" + msgspec.json.encode(values)).hexdigest()
