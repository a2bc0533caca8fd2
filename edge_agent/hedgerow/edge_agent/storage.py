"""Opens what the agent keeps on disk; where the disk refuses, in memory instead, so that the device goes on serving.

A device that watches a machine must not stay dark because its disk is full. What is in memory is lost at the end of
the process; what was on disk before is not touched and is there again at the next start with room.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, NamedTuple

from hedgerow.edge_agent.config import OutboxConfig
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.shared.errors import StorageError
from hedgerow.shared.messages import Notice
from hedgerow.shared.profile import StoreSpec

log = logging.getLogger(__name__)
IN_MEMORY: Final = Path(":memory:")
MEMORY_OUTBOX_BYTES: Final = 1024 * 1024
MEMORY_OUTBOX_EVENTS: Final = 2000
MEMORY_SAMPLES_BYTES: Final = 4 * 1024 * 1024


class Storage(NamedTuple):
    """The open stores, and what a person should know about how they were opened."""

    outbox: Outbox
    samples: SampleStore
    notices: tuple[Notice, ...]


def open_storage(home: AgentHome, outbox: OutboxConfig, samples: StoreSpec) -> Storage:
    """Open outbox and samples of ``home``, each in memory and small if its file cannot be opened."""
    notices: list[Notice] = []
    events = _open_outbox(home, outbox, notices)
    store = _open_samples(home, samples, notices)
    if store.moved_aside is not None:
        notices.append(Notice("samples-damaged", f"moved aside to {store.moved_aside.name}"))
    return Storage(events, store, tuple(notices))


def _open_outbox(home: AgentHome, wanted: OutboxConfig, notices: list[Notice]) -> Outbox:
    try:
        return Outbox(home.outbox, max_bytes=wanted.max_bytes, max_events=wanted.max_events)
    except (StorageError, OSError) as error:
        notices.append(_in_memory("outbox-in-memory", "events", error))
    return Outbox(IN_MEMORY, max_bytes=MEMORY_OUTBOX_BYTES, max_events=MEMORY_OUTBOX_EVENTS)


def _open_samples(home: AgentHome, wanted: StoreSpec, notices: list[Notice]) -> SampleStore:
    try:
        return SampleStore(home.samples, max_bytes=wanted.max_bytes, max_age_s=wanted.max_age_s)
    except (StorageError, OSError) as error:
        notices.append(_in_memory("samples-in-memory", "samples", error))
    return SampleStore(IN_MEMORY, max_bytes=MEMORY_SAMPLES_BYTES, max_age_s=wanted.max_age_s)


def _in_memory(code: str, what: str, error: Exception) -> Notice:
    text = f"{error}; new {what} are kept in memory until the agent is started again with room on the disk"
    log.error("%s", text)
    return Notice(code, text[:1000])
