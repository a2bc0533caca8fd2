"""The round loop's SQL, built once: building an expression costs more than SQLite takes to run it.

An update takes the columns to set from its parameters; ``of_…`` and ``at_…`` name the row.
"""

from __future__ import annotations

from typing import Final, cast

from sqlalchemy import Table, bindparam, delete, insert, or_, select, update

from hedgerow.server.jobs.tables import JobRow
from hedgerow.server.ledger.tables import LedgerHeadRow
from hedgerow.server.rounds.tables import ContributionRow, RoundRow

_JOBS = cast("Table", JobRow.__table__)
_ROUNDS = cast("Table", RoundRow.__table__)
_CONTRIBUTIONS = cast("Table", ContributionRow.__table__)
_HEADS = cast("Table", LedgerHeadRow.__table__)

CURRENT_MODEL: Final = select(_JOBS.c.model_sha256, _JOBS.c.state_sha256).where(
    _JOBS.c.id == bindparam("of_job"), _JOBS.c.rounds_done == bindparam("after_rounds")
)
SET_PROGRESS: Final = update(_JOBS).where(_JOBS.c.id == bindparam("of_job"))
ADD_PLAN: Final = insert(_ROUNDS)
SET_PLAN: Final = update(_ROUNDS).where(
    _ROUNDS.c.job_id == bindparam("of_job"),
    _ROUNDS.c.round == bindparam("at_round"),
    _ROUNDS.c.state == "planned",
)
SET_ROUND: Final = update(_ROUNDS).where(
    _ROUNDS.c.job_id == bindparam("of_job"), _ROUNDS.c.round == bindparam("at_round")
)
ADD_CONTRIBUTIONS: Final = insert(_CONTRIBUTIONS)
DROP_HEADS: Final = delete(_HEADS).where(
    _HEADS.c.job_id == bindparam("of_job"), _HEADS.c.device == bindparam("of_device")
)
ADD_HEADS: Final = insert(_HEADS)
USERS_OF_BLOB: Final = (
    select(_JOBS.c.number)
    .where(or_(_JOBS.c.model_sha256 == bindparam("digest"), _JOBS.c.state_sha256 == bindparam("digest")))
    .limit(1)
)
