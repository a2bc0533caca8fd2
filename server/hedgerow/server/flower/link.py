"""The fleet as the round loop sees it, over Flower's link state: ``FleetLink`` for one event loop.

Ordering rules:

- Everything here runs on the loop that opened the first job; Flower's own routes run in threads and only touch the
  link state, which has its locks and tells the loop when a reply is complete.
- An instruction is *outstanding* until its reply is complete, it failed, or the loop gave it up; only then may a device
  upload for it. A complete reply is *unreleased* until the aggregator lets go of its bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from http import HTTPStatus
from typing import Literal

import msgspec

from hedgerow.server.flower import messages, stock
from hedgerow.server.flower.asgi import Refusal
from hedgerow.server.flower.budget import InflightBudget
from hedgerow.server.flower.fab import FabInfo
from hedgerow.server.flower.heap import return_large_blocks
from hedgerow.server.flower.jobs import OpenJob, Outstanding, Wakers
from hedgerow.server.flower.state import WatchedLinkState
from hedgerow.server.flower.trainers import Trainer, Trainers
from hedgerow.server.rounds.link import Reply, Wire
from hedgerow.shared.errors import ConfigError, ContentError, TransportError
from hedgerow.shared.job import TrainInstruction

LOG = logging.getLogger(__name__)
_ONLINE = ("", "online")
_CLOSED_KEPT = 10_000
Closed = Literal["late", "duplicate"]


class LinkConfig(msgspec.Struct, frozen=True):
    """Bounds of the link. An instruction may be fetched and answered until its deadline and ``grace_s`` more."""

    max_inflight_bytes: int = 64 * 1024 * 1024
    trainer_lifetime_s: float = 60.0
    sweep_interval_s: float = 5.0
    grace_s: float = 30.0
    reply_overhead_bytes: int = 256 * 1024
    stall_s: float = 15.0
    min_bytes_per_s: int = 16 * 1024


class FlowerLink:
    """Implements ``hedgerow.server.rounds.link.FleetLink``; ``fab`` is what stock SuperNodes of ``flower`` jobs run."""

    def __init__(self, config: LinkConfig | None = None, *, fab: FabInfo | None = None) -> None:
        self.config = config = config or LinkConfig()
        self.state = WatchedLinkState(self._replied_in_some_thread)
        self.budget = InflightBudget(config.max_inflight_bytes)
        self.trainers = Trainers(config.trainer_lifetime_s)
        self.wakers = Wakers()
        self.counters: Counter[str] = Counter()
        self.draining = False
        self._fab = fab
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: dict[str, OpenJob] = {}
        self._by_message: dict[str, OpenJob] = {}
        self._closed: OrderedDict[str, Closed] = OrderedDict()
        self._nodes: dict[str, tuple[int, bytes]] = {}
        self._devices: dict[int, str] = {}
        self._gone: set[str] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        return_large_blocks()

    # Nodes

    def register(self, device: str, public_key_pem: bytes) -> int:
        """Make a device's key a Flower node, and return the node's id; idempotent, a new key replaces the old one."""
        known = self._nodes.get(device)
        if known is not None and known[1] == public_key_pem:
            return known[0]
        if known is not None:
            self.unregister(device)
        node_id = self.state.add_node(public_key_pem, device)
        self._nodes[device] = (node_id, public_key_pem)
        self._devices[node_id] = device
        self._gone.discard(device)
        return node_id

    def unregister(self, device: str) -> None:
        """Forget a device's node (it was revoked); what it was asked for fails at once, and nobody waits for it."""
        self._gone.add(device)
        self.trainer_exited(device, reason="the device was unregistered")
        known = self._nodes.pop(device, None)
        if known is not None:
            self._devices.pop(known[0], None)
            self.state.remove_node(*known)

    def gone(self) -> AbstractSet[str]:
        """Return the devices that were unregistered and not registered again."""
        return self._gone

    def node_of(self, device: str) -> int | None:
        """Return the id of a device's node, if it has one."""
        known = self._nodes.get(device)
        return known[0] if known else None

    def key_of(self, device: str) -> bytes | None:
        """Return the key (PEM) of a device's node, if it has one."""
        known = self._nodes.get(device)
        return known[1] if known else None

    # Trainers

    def trainer_joined(self, device: str, job_id: str, activation: str) -> None:
        """Note that a device's trainer activated its node; one that it replaces has lost what it was asked for."""
        replaced = self.trainers.activate(device, job_id, activation, self._now())
        if replaced is not None:
            self._fail_of(replaced, "the trainer was replaced by a new process")
        self._sweep_later()
        self.wakers.wake(_ONLINE)

    def check_trainer(self, device: str, job_id: str, activation: str) -> None:
        """Note a sign of life. Raises Refusal if this is not the device's trainer: after a restart, or replaced."""
        if self.trainers.touch(device, job_id, activation, self._now()):
            return
        if self.trainers.knows(device, job_id):
            raise Refusal(
                HTTPStatus.CONFLICT, "another process took over as this device's trainer", close=True
            )
        raise Refusal(HTTPStatus.PRECONDITION_REQUIRED, "the trainer's node is not active: activate it first")

    def trainer_left(self, device: str, job_id: str, activation: str) -> bool:
        """Note that a trainer ended its work; returns whether the device has no other one."""
        trainer = self.trainers.leave(device, job_id, activation)
        if trainer is not None:
            self._fail_of(trainer, "the trainer left")
        return not self.trainers.has(device)

    def trainer_exited(
        self, device: str, job_id: str | None = None, *, reason: str = "the trainer process ended"
    ) -> None:
        """Deactivate a device's node at once and fail what it was asked for (of one job, or all)."""
        for trainer in self.trainers.drop(device, job_id):
            self._fail_of(trainer, reason)
        for job in list(self._jobs.values()):
            if job_id in (None, job.job_id):
                self._fail_device(job, device, reason, delivered_only=False)
        node_id = self.node_of(device)
        if node_id is not None and not self.trainers.has(device):
            self.state.deactivate_node(node_id)

    def online(self, job_id: str) -> frozenset[str]:
        """Return the devices whose trainer for the job is connected."""
        job = self._jobs.get(job_id)
        if job is None:
            return frozenset()
        return self.trainers.online(job_id, stock=job.wire == "flower", now=self._now())

    async def wait_online(self, job_id: str, count: int, timeout_s: float) -> bool:
        """Return True as soon as ``count`` trainers are connected, False after ``timeout_s``."""
        deadline = self._now() + timeout_s
        while len(self.online(job_id)) < count:
            left = deadline - self._now()
            if left <= 0 or self.draining:
                return False
            await self.wakers.wait(_ONLINE, left)
        return True

    # Jobs

    async def open_job(self, job_id: str, wire: Wire = "packed") -> None:
        """Make a run for the job; idempotent. ``flower`` jobs are for stock SuperNodes and need the link's FAB."""
        self._loop = asyncio.get_running_loop()
        if job_id in self._jobs:
            return
        if wire == "flower" and self._fab is None:
            raise ConfigError(
                'wire = "flower" needs a Flower app bundle: the server was started without one (see flower_fab)'
            )
        run_id = self.state.open_run(self._fab if wire == "flower" else None)
        self._jobs[job_id] = OpenJob(job_id, run_id, wire)

    async def close_job(self, job_id: str) -> None:
        """Forget the job, its run and its model; long polls of its trainers end. Idempotent."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        for message_id in [*job.outstanding, *job.unreleased]:
            self._forget(job, message_id, "late")
        self.state.close_run(job.run_id)
        self.wakers.wake_all()

    def job(self, job_id: str) -> OpenJob | None:
        """Return an open job."""
        return self._jobs.get(job_id)

    def job_of(self, message_id: str) -> OpenJob | None:
        """Return the job of an outstanding or unreleased instruction."""
        return self._by_message.get(message_id)

    def outstanding_of(self, device: str) -> list[Outstanding]:
        """Return what a device was asked and has not answered, over all jobs."""
        jobs = self._jobs.values()
        return [entry for job in jobs for entry in job.outstanding.values() if entry.device == device]

    def closed(self, message_id: str) -> Closed | None:
        """Return why no reply to this instruction is taken any more, if it ever was outstanding lately."""
        return self._closed.get(message_id)

    def publish_model(self, job_id: str, data: memoryview) -> str:
        """Offer ``data`` under its SHA-256 to the job's trainers; it must not change afterwards."""
        job = self._require(job_id)
        job.model = data.cast("B").toreadonly()
        job.model_sha256 = hashlib.sha256(job.model).hexdigest()
        return job.model_sha256

    # Instructions

    async def send(self, job_id: str, device: str, instruction: TrainInstruction) -> str:
        """Hand an instruction to a device. Raises TransportError if its trainer never was here."""
        job = self._require(job_id)
        node_id = self.node_of(device)
        if node_id is None:
            raise TransportError(f"device {device} has never connected to this server")
        model = memoryview(instruction.model) if instruction.model else job.model
        if job.wire == "flower":
            if model is None:
                raise ContentError(f"job {job_id} has no model to send")
            record = stock.stock_record(instruction, model)
        else:
            record = messages.packed_record(instruction)
        message = messages.address(
            record,
            run_id=job.run_id,
            node_id=node_id,
            group=str(instruction.round),
            ttl_s=instruction.deadline_s + self.config.grace_s,
        )
        message_id = self.state.offer(message)
        job.outstanding[message_id] = Outstanding(
            message_id,
            device,
            node_id,
            instruction,
            max_bytes=4 * instruction.n_parameters + self.config.reply_overhead_bytes,
            model=model if job.wire == "flower" else None,
        )
        self._by_message[message_id] = job
        self.wakers.wake((device, job_id))
        return message_id

    async def next_reply(self, job_id: str, timeout_s: float) -> Reply | None:
        """Return the next complete reply, or None after ``timeout_s`` or when the job is closed."""
        return await self._require(job_id).take(timeout_s)

    async def release(self, reply: Reply) -> None:
        """Free the reply's objects and give its upload slot to the next device. Idempotent."""
        # The caller may hold the reply for longer; its bytes must go now, because the next device gets their room.
        if isinstance(reply.payload, list):
            reply.payload.clear()
        job = self._by_message.get(reply.message_id)
        if job is not None and reply.message_id in job.unreleased:
            self._forget(job, reply.message_id, "duplicate")

    async def abandon(self, job_id: str, message_ids: Sequence[str]) -> None:
        """Give instructions up: what is still queued or uploading is dropped, later replies are counted as late."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        for message_id in message_ids:
            if message_id not in job.outstanding and message_id not in job.unreleased:
                continue
            if message_id in job.unreleased:
                waiting = [reply for reply in job.ready if reply.message_id == message_id]
                if not waiting:
                    continue  # taken already: the loop releases it itself
                job.ready.remove(waiting[0])
                self.counters["late"] += 1
            self._forget(job, message_id, "late")

    # Life

    def drain(self) -> None:
        """End every long poll, so that a stopping server need not wait for them."""
        self.draining = True
        self.wakers.wake_all()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def clock(self) -> float:
        """Return the loop's monotonic time in seconds."""
        return self._now()

    def is_complete(self, entry: Outstanding) -> bool:
        """Whether the entry's reply has all of its objects, and only waits to be handed on."""
        return self.state.is_complete(entry.message_id)

    def _now(self) -> float:
        return (self._loop or asyncio.get_running_loop()).time()

    def _require(self, job_id: str) -> OpenJob:
        job = self._jobs.get(job_id)
        if job is None:
            raise TransportError(f"job {job_id} is not open on this link")
        return job

    def _replied_in_some_thread(self, instruction_id: str, reply_id: str) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._replied, instruction_id, reply_id)

    def _replied(self, instruction_id: str, reply_id: str) -> None:
        job = self._by_message.get(instruction_id)
        entry = job.outstanding.pop(instruction_id, None) if job is not None else None
        if job is None or entry is None:
            return
        try:
            if entry.model is not None:
                decoded = stock.decode_stock(
                    self.state.object_store.get, reply_id, entry.instruction, entry.model
                )
            else:
                decoded = messages.decode_packed(self.state.object_store.get, reply_id)
        except ContentError as error:
            decoded = messages.Decoded(None, (), str(error))
            self.counters["malformed"] += 1
        n_bytes = entry.received_bytes or sum(len(part) for part in decoded.payload)
        payload = list(decoded.payload)
        reply = Reply(entry.device, instruction_id, decoded.header, payload, n_bytes, decoded.error)
        job.unreleased[instruction_id] = entry
        job.put(reply)

    def _fail_of(self, trainer: Trainer, reason: str) -> None:
        for job in list(self._jobs.values()):
            if trainer.job_id in ("", job.job_id):
                self._fail_device(job, trainer.device, reason, delivered_only=True)

    def _fail_device(self, job: OpenJob, device: str, reason: str, *, delivered_only: bool) -> None:
        for entry in list(job.outstanding.values()):
            if entry.device == device and (entry.delivered_to is not None or not delivered_only):
                self._forget(job, entry.message_id, "late")
                job.put(Reply(device, entry.message_id, None, (), 0, reason))

    def _forget(self, job: OpenJob, message_id: str, why: Closed) -> None:
        self._closed[message_id] = why
        while len(self._closed) > _CLOSED_KEPT:
            self._closed.popitem(last=False)
        job.outstanding.pop(message_id, None)
        job.unreleased.pop(message_id, None)
        self._by_message.pop(message_id, None)
        self.state.forget(message_id)
        self.budget.release(message_id)

    def _sweep_later(self) -> None:
        if self._sweeper is None and not self.draining:
            loop = self._loop or asyncio.get_running_loop()
            self._sweeper = loop.call_later(self.config.sweep_interval_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        for trainer in self.trainers.expire(self._now()):
            LOG.warning(
                "trainer of %s for job %r was not heard of; its node is off", trainer.device, trainer.job_id
            )
            self._fail_of(trainer, "the trainer was not heard of")
            node_id = self.node_of(trainer.device)
            if node_id is not None and not self.trainers.has(trainer.device):
                self.state.deactivate_node(node_id)
        if self._jobs or self.trainers.online("", stock=True, now=self._now()):
            self._sweep_later()
