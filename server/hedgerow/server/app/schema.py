"""All tables of the server, gathered so that the database can be made and migrated as one."""

from __future__ import annotations

from sqlalchemy import MetaData

from hedgerow.server.api import tables as api
from hedgerow.server.delivery import tables as delivery
from hedgerow.server.fleet import tables as fleet
from hedgerow.server.jobs import tables as jobs
from hedgerow.server.ledger import tables as ledger
from hedgerow.server.registry import tables as registry
from hedgerow.server.rounds import tables as rounds
from hedgerow.server.store.database import Base

PARTS = (api, delivery, fleet, jobs, ledger, registry, rounds)
METADATA: MetaData = Base.metadata
