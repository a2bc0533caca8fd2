"""Rounds over the real link: real nodes, mutual TLS, Flower's link state; what goes wrong costs what it must, no more."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.support.raw_device import RawDevice
from tests.support.round_parts import JOB, header, in_thread, instruction, node, settle, spawn_echo, update

from hedgerow.edge_agent.trainer.fleet import FleetNode, JobClosedError, ReplacedError
from hedgerow.server.flower import FlowerLink, LinkConfig
from hedgerow.server.gateway import GatewayConfig
from hedgerow.server.rounds.book import Contribution
from hedgerow.server.rounds.collect import Collector, Watch
from hedgerow.server.rounds.link import Reply
from hedgerow.server.rounds.plan import Key, Plan
from hedgerow.server.rounds.waiting import Presence
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ConfigError, ContentError, IntegrityError, TransportError
from hedgerow.shared.job import TrainInstruction, TrainReply
from hedgerow.simulations.bench.bed import Bed

Scenario = Callable[[Bed, FlowerLink, str], Awaitable[None]]
LARGE = 700_000


def run(tmp_path: Path, scenario: Scenario, config: LinkConfig | None = None) -> None:
    async def serve() -> None:
        bed = Bed(tmp_path)
        async with bed.serve(config) as (link, url):
            await link.open_job(JOB)
            await scenario(bed, link, url)

    asyncio.run(serve())


async def joined(bed: Bed, url: str, device: str = "a", job: str = JOB) -> FleetNode:
    member = node(url, bed.identity(device), job)
    await in_thread(member.activate, 30.0)
    return member


async def answered(member: FleetNode, payload: bytes) -> str:
    got = await in_thread(member.receive, 30.0)
    assert got is not None
    asked, handle = got
    return await in_thread(member.reply, handle, header(asked, payload), payload)


async def taken(link: FlowerLink) -> Reply:
    reply = await link.next_reply(JOB, 30.0)
    assert reply is not None
    return reply


def is_empty(link: FlowerLink) -> bool:
    """Whether nothing of any message is left in memory."""
    state = link.state
    return (
        len(state.object_store) == 0
        and link.budget.held_bytes == 0
        and state.num_message_ins() == 0
        and state.num_message_res() == 0
        and not state._uploads
        and not state._queued
    )


@pytest.mark.parametrize("n", [0, 16, LARGE])
def test_an_instruction_and_its_reply_arrive_whole_and_leave_nothing_behind(tmp_path: Path, n: int) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        asked, payload = instruction(n, model=b"\x01" * 64), update(n)
        message_id = await link.send(JOB, "a", asked)
        got = await in_thread(member.receive, 30.0)
        assert got is not None
        assert got[0] == asked
        assert await in_thread(member.reply, got[1], header(asked, payload), payload) == "accepted"

        reply = await taken(link)

        assert (reply.device, reply.message_id, reply.error) == ("a", message_id, None)
        assert reply.header == header(asked, payload)
        assert b"".join(reply.payload) == payload
        assert len(payload) <= reply.n_bytes <= len(payload) + 4096
        assert all(len(part) <= fleetwire.CHUNK_BYTES for part in reply.payload)
        await link.release(reply)
        await link.release(reply)
        assert is_empty(link)
        await in_thread(member.close)

    run(tmp_path, scenario)


def test_sending_wakes_a_waiting_device(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        waiting = asyncio.create_task(in_thread(member.receive, 50.0))
        await settle(lambda: bool(link.wakers._futures.get(("a", JOB))))
        await link.send(JOB, "a", instruction())
        got = await asyncio.wait_for(waiting, 60.0)
        assert got is not None
        await in_thread(member.close)

    run(tmp_path, scenario)


def test_equal_updates_of_two_devices_both_count(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        members = [await joined(bed, url, name) for name in ("a", "b")]
        payload = bytes(4 * LARGE)
        for name in ("a", "b"):
            await link.send(JOB, name, instruction(LARGE))
        assert [await answered(member, payload) for member in members] == ["accepted"] * 2
        replies = [await taken(link), await taken(link)]
        assert {reply.device for reply in replies} == {"a", "b"}
        assert all(b"".join(reply.payload) == payload for reply in replies)
        for reply in replies:
            await link.release(reply)
        assert is_empty(link)
        for member in members:
            await in_thread(member.close)

    run(tmp_path, scenario)


def test_a_device_that_never_connected_cannot_be_sent_to(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        with pytest.raises(TransportError, match="never connected"):
            await link.send(JOB, "stranger", instruction())

    run(tmp_path, scenario)


def test_a_late_reply_is_discarded_and_counted(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        message_id = await link.send(JOB, "a", instruction(LARGE))
        got = await in_thread(member.receive, 30.0)
        assert got is not None
        await link.abandon(JOB, [message_id])
        payload = update(LARGE)
        assert await in_thread(member.reply, got[1], header(got[0], payload), payload) == "late"
        assert link.counters["late"] == 1
        assert await link.next_reply(JOB, 0.05) is None
        assert is_empty(link)
        await link.send(JOB, "a", instruction(round=2))
        assert await answered(member, update(16)) == "accepted"
        await in_thread(member.close)

    run(tmp_path, scenario)


def test_a_reply_that_nobody_took_is_dropped_when_it_is_abandoned(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        message_id = await link.send(JOB, "a", instruction())
        assert await answered(member, update(16)) == "accepted"
        await settle(lambda: bool(link.job(JOB) and link.job(JOB).ready))  # type: ignore[union-attr]
        await link.abandon(JOB, [message_id, "unknown"])
        assert await link.next_reply(JOB, 0.05) is None
        assert is_empty(link)
        await in_thread(member.close)

    run(tmp_path, scenario)


@pytest.mark.parametrize("released", [False, True])
def test_a_second_reply_to_one_instruction_is_refused_and_counted(tmp_path: Path, released: bool) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        await link.send(JOB, "a", instruction())
        got = await in_thread(member.receive, 30.0)
        assert got is not None
        first, second = update(16, 1), update(16, 2)
        await in_thread(member.reply, got[1], header(got[0], first), first)
        reply = await taken(link)
        if released:
            await link.release(reply)
        assert await in_thread(member.reply, got[1], header(got[0], second), second) == "duplicate"
        assert link.counters["duplicate"] == 1
        assert b"".join(reply.payload) == (b"" if released else first)
        assert await link.next_reply(JOB, 0.05) is None
        await in_thread(member.close)

    run(tmp_path, scenario)


def test_a_reply_larger_than_its_instruction_allows_is_refused(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        await link.send(JOB, "a", instruction(16))
        with pytest.raises(ContentError, match="at most"):
            await answered(member, update(LARGE))
        assert link.counters["over-size"] == 1
        assert await answered_again(member, link) == "accepted"
        await in_thread(member.close)

    async def answered_again(member: FleetNode, link: FlowerLink) -> str:
        await link.send(JOB, "a", instruction(16, round=2))
        return await answered(member, update(16))

    run(tmp_path, scenario)


@pytest.mark.system
def test_a_killed_trainer_fails_its_round_at_once_and_its_successor_takes_the_next(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        bed.identity("a")
        first = spawn_echo(url, tmp_path / "a", 16)
        try:
            assert await link.wait_online(JOB, 1, 30.0)
            os.kill(first.pid, signal.SIGSTOP)
            message_id = await link.send(JOB, "a", instruction())
        finally:
            first.kill()
            await in_thread(first.wait)

        link.trainer_exited("a", JOB)

        reply = await taken(link)
        assert (reply.message_id, reply.header) == (message_id, None)
        assert "ended" in (reply.error or "")
        assert link.online(JOB) == frozenset()
        second = spawn_echo(url, tmp_path / "a", 16)
        try:
            assert await link.wait_online(JOB, 1, 30.0)
            await link.send(JOB, "a", instruction(round=2))
            reply = await taken(link)
            assert reply.header is not None
            assert reply.header.round == 2
            await link.release(reply)
            assert is_empty(link)
        finally:
            second.kill()
            await in_thread(second.wait)

    run(tmp_path, scenario)


def test_a_newer_process_takes_over_and_the_older_one_is_told_to_end(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        older = await joined(bed, url)
        lost = await link.send(JOB, "a", instruction())
        assert await in_thread(older.receive, 30.0) is not None
        newer = await joined(bed, url)
        reply = await taken(link)
        assert (reply.message_id, reply.header) == (lost, None)
        assert "replaced" in (reply.error or "")
        with pytest.raises(ReplacedError):
            await in_thread(older.receive, 1.0)
        await in_thread(older.close)
        await link.send(JOB, "a", instruction(round=2))
        assert await answered(newer, update(16)) == "accepted"
        assert link.online(JOB) == {"a"}
        await in_thread(newer.close)
        assert link.online(JOB) == frozenset()

    run(tmp_path, scenario)


def test_one_device_trains_for_two_jobs_at_once(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        await link.open_job("job-2")
        one, two = await joined(bed, url), await joined(bed, url, job="job-2")
        await link.send("job-2", "a", instruction(job="job-2"))
        assert await in_thread(one.receive, 0.1) is None
        got = await in_thread(two.receive, 30.0)
        assert got is not None
        assert got[0].job_id == "job-2"
        await in_thread(two.close)
        assert link.online(JOB) == {"a"}
        assert link.online("job-2") == frozenset()
        await link.send(JOB, "a", instruction())
        assert await answered(one, update(16)) == "accepted"
        await in_thread(one.close)

    run(tmp_path, scenario)


def test_an_instruction_is_handed_out_again_until_its_receipt_is_confirmed(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        message_id = await link.send(JOB, "a", instruction())
        first = await in_thread(member._calls.next, 1.0, "")
        again = await in_thread(member._calls.next, 1.0, "")
        assert first == again
        assert first is not None
        assert await in_thread(member._calls.next, 0.1, message_id) is None
        await in_thread(member.close)

    run(tmp_path, scenario)


def test_closing_a_job_ends_its_trainers_waiting(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        # A job that is not open may be about to open: the node asks on until its own patience ends.
        waiting = asyncio.create_task(in_thread(member.receive, 3.0))
        await settle(lambda: bool(link.wakers._futures.get(("a", JOB))))
        await link.close_job(JOB)
        await link.close_job(JOB)
        with pytest.raises(JobClosedError):
            await asyncio.wait_for(waiting, 60.0)
        await in_thread(member.close)

    run(tmp_path, scenario)


def test_trainers_find_a_restarted_server_by_themselves(tmp_path: Path) -> None:
    async def serve() -> None:
        bed = Bed(tmp_path)
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            member = await joined(bed, url)
        waiting = asyncio.create_task(in_thread(member.receive, 50.0))
        port = int(url.rpartition(":")[2])
        async with bed.serve(gateway=GatewayConfig(port=port, drain_s=2)) as (link, _):
            await link.open_job(JOB)
            assert await link.wait_online(JOB, 1, 30.0)
            await link.send(JOB, "a", instruction(round=4))
            got = await asyncio.wait_for(waiting, 60.0)
            assert got is not None
            assert got[0].round == 4
            payload = update(16)
            assert await in_thread(member.reply, got[1], header(got[0], payload), payload) == "accepted"
            await in_thread(member.close)

    asyncio.run(serve())


def test_the_model_comes_by_its_hash_and_only_to_the_jobs_trainers(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        await link.open_job("job-2")
        other = await joined(bed, url, "b", "job-2")
        model = update(LARGE)
        first = link.publish_model(JOB, memoryview(model))
        assert await in_thread(member.fetch_model, first) == model
        with pytest.raises(ContentError):
            await in_thread(other.fetch_model, first)
        second = link.publish_model(JOB, memoryview(b"\x02" * 400))
        assert await in_thread(member.fetch_model, second) == b"\x02" * 400
        with pytest.raises(ContentError, match="not the job's model"):
            await in_thread(member.fetch_model, first)
        job = link.job(JOB)
        assert job is not None
        job.model = memoryview(b"\x03" * 400)
        with pytest.raises(IntegrityError):
            await in_thread(lambda: member._models.get("0" * 64, lambda: b"\x03"))
        for each in (member, other):
            await in_thread(each.close)

    run(tmp_path, scenario)


def test_uploads_beyond_the_budget_wait_until_one_is_released(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        members = {name: await joined(bed, url, name) for name in ("a", "b", "c")}
        for name in members:
            await link.send(JOB, name, instruction(LARGE))
        payload = update(LARGE)
        uploads = [asyncio.create_task(answered(member, payload)) for member in members.values()]
        reply = await taken(link)
        await settle(lambda: link.budget.waiting == 2)
        assert link.budget.held_bytes <= 4 * LARGE + 4096
        assert sum(upload.done() for upload in uploads) <= 1
        await link.release(reply)
        for _ in range(2):
            await link.release(await taken(link))
        assert await asyncio.gather(*uploads) == ["accepted"] * 3
        assert is_empty(link)
        for member in members.values():
            await in_thread(member.close)

    run(tmp_path, scenario, LinkConfig(max_inflight_bytes=5 * LARGE))


def test_a_silent_trainer_is_given_up(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        message_id = await link.send(JOB, "a", instruction())
        assert await in_thread(member.receive, 30.0) is not None
        reply = await taken(link)
        assert (reply.message_id, reply.header) == (message_id, None)
        assert link.online(JOB) == frozenset()
        await in_thread(member.close)

    run(tmp_path, scenario, LinkConfig(trainer_lifetime_s=0.3, sweep_interval_s=0.1))


def test_a_revoked_device_fails_what_it_was_asked_and_may_come_back_with_a_new_key(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        member = await joined(bed, url)
        await link.send(JOB, "a", instruction())
        link.unregister("a")
        assert (await taken(link)).header is None
        assert link.node_of("a") is None
        await in_thread(member.close)
        for path in ("key.pem", "cert.pem"):
            (tmp_path / "a" / path).unlink()
        again = await joined(bed, url)
        await link.send(JOB, "a", instruction(round=2))
        assert await answered(again, update(16)) == "accepted"
        await in_thread(again.close)

    run(tmp_path, scenario)


class Asking:
    """An exchange that counts whoever answers."""

    index = 0

    def instruction(self, device: str, deadline_s: float) -> TrainInstruction:
        return instruction()

    async def accept(self, key: Key, reply: Reply, header: TrainReply) -> Contribution:
        return Contribution(key.device, "counted")


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_round_ends_without_a_device_that_was_drawn_and_then_revoked(
    tmp_path: Path, asked_before: bool
) -> None:
    """Its deadline and the time to rejoin are longer than this test may take."""
    never = 10_000.0
    watch = Watch(lambda book: None, lambda device, reason, detail: None)

    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        stays, goes = await joined(bed, url), await joined(bed, url, "b")
        plan = Plan(JOB, 1, 1, ("a", "b"))
        if not asked_before:
            link.unregister("b")
        now = asyncio.get_running_loop().time()
        collector = Collector(link, plan, Asking(), Presence(now), watch, never)
        collecting = asyncio.create_task(collector.run(now + never))
        assert await answered(stays, update(16)) == "accepted"
        if asked_before:
            link.unregister("b")

        book = await asyncio.wait_for(collecting, 60.0)

        assert book.contributions["a"].outcome == "counted"
        lost = book.contributions["b"]
        expected = (
            ("declined", "the device was unregistered") if asked_before else ("missing", "left the fleet")
        )
        assert (lost.outcome, lost.reason) == expected
        assert not book.strays
        assert link.gone() == {"b"}
        link.register("b", b"another key")
        assert link.gone() == frozenset()
        for member in (stays, goes):
            await in_thread(member.close)

    run(tmp_path, scenario)


def test_a_job_for_stock_apps_needs_their_bundle(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        with pytest.raises(ConfigError, match="app bundle"):
            await link.open_job("stock", "flower")

    run(tmp_path, scenario)


def test_opening_a_job_again_keeps_its_run(tmp_path: Path) -> None:
    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        before = link.job(JOB)
        await link.open_job(JOB)
        assert link.job(JOB) is before

    run(tmp_path, scenario)


def test_trainers_of_a_job_that_ended_keep_their_connections(tmp_path: Path) -> None:
    """A thousand ask again, and then say goodbye: with a handshake for each of these a server does nothing else."""

    async def scenario(bed: Bed, link: FlowerLink, url: str) -> None:
        device = RawDevice(url, bed.identity("a"))
        headers = {fleetwire.JOB_HEADER: "ended", fleetwire.ACTIVATION_HEADER: "1" * 32}

        def ask(path: str) -> tuple[int, bytes]:
            return device.request("GET", path, headers=headers, keep=True)

        for path in (fleetwire.NEXT_PATH, fleetwire.MODELS_PATH + "0" * 64, fleetwire.NEXT_PATH):
            status, body = await in_thread(ask, path)
            assert (status, b"not open" in body) == (410, True)
        kept = device.kept
        assert kept is not None
        kept.close()

    run(tmp_path, scenario)
