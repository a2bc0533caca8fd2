"""Reading ledger heads back; they are written inside the transaction of the round that they belong to."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from hedgerow.server.ledger.heads import Claim
from hedgerow.server.ledger.tables import LedgerHeadRow


def read_heads(session: Session, job_id: str) -> dict[str, Claim]:
    """Return each device's last committed claim in a job."""
    rows = session.execute(
        select(
            LedgerHeadRow.device,
            LedgerHeadRow.round,
            LedgerHeadRow.head,
            LedgerHeadRow.length,
            LedgerHeadRow.epsilon,
            LedgerHeadRow.delta,
        ).where(LedgerHeadRow.job_id == job_id)
    )
    return {
        device: Claim(round, head, length, epsilon, delta)
        for device, round, head, length, epsilon, delta in rows
    }
