"""A node's errors are clear, and its connection comes back: sessions resumed, clocks checked, foreign servers refused."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from tests.support.round_parts import JOB, header, in_thread, instruction, node, settle, update

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.edge_agent.trainer.fleet import FleetNode, signing
from hedgerow.edge_agent.trainer.fleet.connection import Connection, Endpoint
from hedgerow.edge_agent.trainer.fleet.errors import JobClosedError
from hedgerow.edge_agent.trainer.fleet.signing import NodeSigner
from hedgerow.server.flower import LinkConfig
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import AuthError, ConfigError, StorageError, TransportError
from hedgerow.simulations.bench.bed import Bed

T = TypeVar("T")


def test_a_server_out_of_reach_is_said_after_the_timeout(tmp_path: Path) -> None:
    member = node("https://127.0.0.1:1", Bed(tmp_path).identity("a"))
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:1"):
        member.activate(0.2)
    member.close()


@pytest.mark.parametrize("url", ["http://x:1", "nonsense", "https://", "ftp://x"])
def test_a_wrong_url_is_said_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="https://HOST:PORT"):
        node(url, Bed(tmp_path).identity("a"))


def test_a_missing_identity_is_said_at_once(tmp_path: Path) -> None:
    files = IdentityFiles(*(tmp_path / name for name in ("key.pem", "cert.pem", "ca.pem", "facts.json")))
    with pytest.raises(StorageError):
        node("https://127.0.0.1:1", files)


def test_another_fleets_server_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        bed, other = Bed(tmp_path / "one"), Bed(tmp_path / "other")
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            member = node(url, other.identity("a"))
            with pytest.raises(AuthError):
                await in_thread(member.activate, 30.0)
            member.close()

    asyncio.run(scenario())


def test_a_revoked_device_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        bed = Bed(tmp_path)
        bed.revoked.add("a")
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            with pytest.raises(AuthError, match="revoked"):
                await in_thread(node(url, bed.identity("a")).activate, 30.0)

    asyncio.run(scenario())


def test_a_job_that_is_not_open_is_said_after_the_timeout(tmp_path: Path) -> None:
    async def scenario() -> None:
        bed = Bed(tmp_path)
        async with bed.serve() as (_, url):
            with pytest.raises(JobClosedError, match="not open"):
                await in_thread(node(url, bed.identity("a")).activate, 0.2)

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [-3600, -310, 8, 60, 7200])
def test_a_device_whose_clock_is_wrong_signs_by_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=seconds)

    async def scenario() -> None:
        bed = Bed(tmp_path)
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            member = node(url, bed.identity("a"))
            await in_thread(member.activate, 30.0)
            assert link.online(JOB) == {"a"}
            await in_thread(member.close)

    monkeypatch.setattr(signing, "datetime", Wrong)
    asyncio.run(scenario())


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Thu, 32 Nov 2026 99:00:00 GMT", "Thu, 01 Jan 1970 00:00:00"]
)
def test_a_date_that_is_none_corrects_nothing(tmp_path: Path, date: str) -> None:
    assert not NodeSigner(Bed(tmp_path).identity("a").key).correct(date)


def test_a_clock_that_agrees_is_not_corrected_and_one_correction_is_enough(tmp_path: Path) -> None:
    signer = NodeSigner(Bed(tmp_path).identity("a").key)
    assert not signer.correct(format_datetime(datetime.now(UTC), usegmt=True))
    ahead = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    assert signer.correct(ahead)
    assert not signer.correct(ahead)
    signed = datetime.fromisoformat(signer.headers()["flwr-timestamp"])
    assert abs(signed - datetime.now(UTC) - timedelta(minutes=5)) < timedelta(seconds=30)


def test_a_clock_far_off_is_named_as_a_possible_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        bed = Bed(tmp_path)
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            member = node(url, bed.identity("a"))
            monkeypatch.setattr(
                member._calls._signer,
                "headers",
                lambda: {**original(), "flwr-timestamp": "1970-01-01T00:00:00+00:00"},
            )
            with pytest.raises(AuthError, match="clock"):
                await in_thread(member.activate, 30.0)

    signer = NodeSigner(Bed(tmp_path / "clock").identity("a").key)
    original = signer.headers
    asyncio.run(scenario())


def test_a_new_connection_resumes_the_tls_session_and_is_still_the_device(tmp_path: Path) -> None:
    async def scenario() -> None:
        bed = Bed(tmp_path)
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            connection = Connection(Endpoint.parse(url), device_context(bed.identity("a")))
            reused = []

            def ask() -> int:
                answer = connection.request(
                    "GET", fleetwire.NEXT_PATH, {fleetwire.JOB_HEADER: JOB}, timeout_s=5.0
                )
                assert connection._socket is not None
                reused.append(connection._socket.session_reused)
                connection.close()
                return answer.status

            assert [await in_thread(ask) for _ in range(3)] == [428, 428, 428]
            assert reused == [False, True, True]

    asyncio.run(scenario())


def test_interrupting_ends_a_wait_from_another_thread(tmp_path: Path) -> None:
    async def scenario() -> None:
        bed = Bed(tmp_path)
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            member = node(url, bed.identity("a"))
            await in_thread(member.activate, 30.0)
            waiting = asyncio.create_task(in_thread(member.receive, 40.0))
            await asyncio.sleep(0.2)
            begun = time.monotonic()
            member.interrupt()
            with contextlib.suppress(TransportError):
                assert await asyncio.wait_for(waiting, 20.0) is None
            assert time.monotonic() - begun < 20
            await in_thread(member.close)
            assert link.online(JOB) == frozenset()

    asyncio.run(scenario())


def test_heartbeats_keep_a_long_training_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        bed = Bed(tmp_path)
        config = LinkConfig(trainer_lifetime_s=2.0, sweep_interval_s=0.1)
        async with bed.serve(config) as (link, url):
            await link.open_job(JOB)
            member = FleetNode(url, bed.identity("a"), JOB, heartbeat_interval_s=0.2)
            # Flower takes no interval below ten seconds; ours is how often we beat, theirs what we promise.
            monkeypatch.setattr(member._calls, "activate", partial(_promise, member._calls.activate))
            monkeypatch.setattr(member._beats, "heartbeat", partial(_promise, member._beats.heartbeat))
            await in_thread(member.activate, 30.0)
            await asyncio.sleep(3.5)
            assert link.online(JOB) == {"a"}
            await in_thread(member.close)

    asyncio.run(scenario())


def test_a_node_beats_only_where_nothing_else_was_heard_of_it(tmp_path: Path) -> None:
    """A cohort in quick rounds would otherwise open a connection each, all at once, in the middle of one."""

    async def scenario() -> None:
        bed = Bed(tmp_path)
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            member = FleetNode(url, bed.identity("a"), JOB, heartbeat_interval_s=20.0)
            assert member._is_silent(time.monotonic())
            await in_thread(member.activate, 30.0)
            spoke_s = time.monotonic()
            assert not member._is_silent(spoke_s + 9.0)
            assert member._is_silent(spoke_s + 10.1)

            assert await in_thread(member.receive, 0.05) is None
            assert member._is_silent(time.monotonic() + 10.1)
            assert not member._is_silent(time.monotonic())
            waiting = asyncio.create_task(in_thread(member.receive, 5.0))
            await settle(lambda: member._polling)
            assert not member._is_silent(time.monotonic() + 60.0)
            await link.send(JOB, "a", instruction())
            got = await waiting
            assert got is not None
            assert await in_thread(member.reply, got[1], header(got[0], update(16)), update(16)) == "accepted"
            assert not member._is_silent(time.monotonic())
            await in_thread(member.close)

    asyncio.run(scenario())


def _promise(call: Callable[..., T], *args: object) -> T:
    return call(*args[:-1], 20.0)
