from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import func, select
from tests.support.fleet import heartbeat_of

from hedgerow.server.bus import Bus
from hedgerow.server.fleet import Fleet, FleetSettings
from hedgerow.server.fleet.tables import EventRow, HeartbeatRow
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.store.database import Base, Database
from hedgerow.shared.messages import BundleTarget, DesiredState, Event, EventBatch, Notice


class Bed:
    """A fleet whose housekeeping runs within hundredths of a second."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.folder = folder
        exists = (folder / "ca.pem").exists()
        self.authority = CertificateAuthority.load(folder) if exists else CertificateAuthority.create(folder)
        self.database = Database(f"sqlite:///{folder / 'test.db'}")
        Base.metadata.create_all(self.database.engine)
        self.fleet = Fleet(
            self.database,
            Bus(),
            self.authority,
            tuf_root=lambda: "{}",
            settings=FleetSettings(**{"max_events": 5, **settings}),  # type: ignore[arg-type]
        )

    def count(self, table: type[Base]) -> int:
        with self.database.transaction() as session:
            return int(session.scalar(select(func.count()).select_from(table)) or 0)


async def eventually(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.01)


def batch(n: int) -> EventBatch:
    return EventBatch("e", tuple(Event(s, 0, "info", Notice("n", "")) for s in range(1, n + 1)))


def test_housekeeping_writes_heartbeats_and_prunes_events_by_itself(tmp_path: Path) -> None:
    bed = Bed(tmp_path, heartbeat_flush_s=0.02, housekeeping_s=0.02)

    async def scenario() -> None:
        await bed.fleet.start()
        bed.fleet.heartbeats.record("a", heartbeat_of("a"))
        await bed.fleet.events.receive("a", batch(9))
        await eventually(lambda: bed.count(HeartbeatRow) == 1 and bed.count(EventRow) == 5)
        await bed.fleet.stop()

    asyncio.run(scenario())
    bed.database.close()


def test_stop_writes_down_what_is_fresh_and_a_restart_knows_it(tmp_path: Path) -> None:
    bed = Bed(tmp_path)

    async def first() -> None:
        await bed.fleet.start()
        bed.fleet.heartbeats.record("a", heartbeat_of("a", alarms_total=3))
        bed.fleet.desired.set_bundle(["a"], BundleTarget("m", 1, ""))
        await bed.fleet.stop()

    asyncio.run(first())
    bed.database.close()
    again = Bed(tmp_path)

    async def second() -> tuple[int, DesiredState]:
        await again.fleet.start()
        seen = again.fleet.heartbeats.get("a")
        await again.fleet.stop()
        assert seen is not None
        return seen.heartbeat.alarms_total, again.fleet.desired.get("a")

    assert asyncio.run(second()) == (3, DesiredState(1, (BundleTarget("m", 1, ""),)))
    again.database.close()


def test_housekeeping_outlives_a_database_that_refuses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bed = Bed(tmp_path, heartbeat_flush_s=0.02)

    async def scenario() -> None:
        await bed.fleet.start()
        with bed.database.transaction() as session:
            session.connection().exec_driver_sql("ALTER TABLE heartbeats RENAME TO hidden")
        bed.fleet.heartbeats.record("a", heartbeat_of("a"))
        await eventually(lambda: "heartbeats" in caplog.text)
        with bed.database.transaction() as session:
            session.connection().exec_driver_sql("ALTER TABLE hidden RENAME TO heartbeats")
        bed.fleet.heartbeats.record("a", heartbeat_of("a"))
        await eventually(lambda: bed.count(HeartbeatRow) == 1)
        await bed.fleet.stop()

    asyncio.run(scenario())
    bed.database.close()


def test_heartbeat_of_a_failed_flush_is_written_by_the_next(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.fleet.heartbeats.record("a", heartbeat_of("a"))
    with bed.database.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE heartbeats RENAME TO hidden")
    with pytest.raises(Exception, match="no such table"):
        bed.fleet.heartbeats.flush()
    with bed.database.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE hidden RENAME TO heartbeats")

    assert bed.fleet.heartbeats.flush() == 1
    bed.database.close()


def test_revocation_list_is_signed_afresh_by_itself(tmp_path: Path) -> None:
    bed = Bed(tmp_path, revocation_list_s=0.02)

    def number() -> int:
        listed = x509.load_pem_x509_crl((tmp_path / "crl.pem").read_bytes())
        return listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    async def scenario() -> None:
        await bed.fleet.start()
        before = number()
        await eventually(lambda: number() > before)
        await bed.fleet.stop()

    asyncio.run(scenario())
    bed.database.close()
