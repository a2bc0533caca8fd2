"""A fleet in one process for unit tests of the round loop: it keeps every promise of ``FleetLink``, without a wire."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from hedgerow.server.rounds.link import Reply
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import TransportError
from hedgerow.shared.job import CENTRAL_MODES, TrainInstruction, TrainReply
from hedgerow.shared.packing import Vector, pack
from hedgerow.shared.privacy.central import clip_to

Behaviour = Callable[[str, TrainInstruction, Vector], "Answer | None"]


class Answer(msgspec.Struct):
    """What a device does with an instruction. ``delta`` may be raw bytes; ``header`` overrides fields of the reply's.

    ``then`` runs once the reply was handed to the link.
    """

    delta: Any = None
    header: dict[str, Any] = {}
    delay_s: float = 0.0
    error: str | None = None
    split: int | None = None
    copies: int = 1


def steady(device: str, instruction: TrainInstruction, model: Vector) -> Answer:
    """Move towards a target that depends on device and round alone, by sums exact in float32."""
    number = int(device.rsplit("-", 1)[1])
    delta = (np.arange(model.size) % 7 + number + instruction.round).astype(np.float32) / 64 - model / 4
    return Answer(delta.astype(np.float32))


class FakeFleet:
    """Devices by name, each with a behaviour; all online at first."""

    def __init__(self, names: Sequence[str], behaviour: Behaviour = steady, *, online: bool = True) -> None:
        self.behaviour = behaviour
        self.behaviours: dict[str, Behaviour] = {}
        self.names = frozenset(names)
        self.up = set(names) if online else set()
        self.unreachable: set[str] = set()
        self.left: set[str] = set()
        self.deliver_late = False
        self.sent: list[tuple[str, TrainInstruction]] = []
        self.abandoned: list[str] = []
        self.late = 0
        self.unreleased = 0
        self.open_jobs: set[str] = set()
        self.models: dict[str, Vector] = {}
        self._ids = itertools.count(1)
        self._outstanding: dict[str, tuple[str, TrainInstruction]] = {}
        self._ready: asyncio.Queue[Reply] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open_job(self, job_id: str, wire: str = "packed") -> None:
        self.open_jobs.add(job_id)

    async def close_job(self, job_id: str) -> None:
        self.open_jobs.discard(job_id)

    def publish_model(self, job_id: str, data: memoryview) -> str:
        self.models[job_id] = np.frombuffer(data, "<f4").copy()
        return sha256_hex(data)

    async def send(self, job_id: str, device: str, instruction: TrainInstruction) -> str:
        assert job_id in self.open_jobs
        if device in self.unreachable | self.left:
            raise TransportError(f"{device} is not known to this link")
        message_id = f"m{next(self._ids)}"
        self.sent.append((device, instruction))
        self._outstanding[message_id] = (device, instruction)
        if device in self.up:
            self._start(message_id)
        return message_id

    async def next_reply(self, job_id: str, timeout_s: float) -> Reply | None:
        if self._ready.empty():
            try:
                reply = await asyncio.wait_for(self._ready.get(), timeout_s)
            except TimeoutError:
                return None
        else:
            reply = self._ready.get_nowait()
        self.unreleased += 1
        return reply

    async def release(self, reply: Reply) -> None:
        self.unreleased -= 1

    def online(self, job_id: str) -> frozenset[str]:
        return frozenset(self.up)

    def gone(self) -> frozenset[str]:
        return frozenset(self.left)

    async def wait_online(self, job_id: str, count: int, timeout_s: float) -> bool:
        async def reached() -> None:
            while len(self.up) < count:
                self._changed.clear()
                await self._changed.wait()

        try:
            await asyncio.wait_for(reached(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def abandon(self, job_id: str, message_ids: Sequence[str]) -> None:
        self.abandoned += message_ids
        if not self.deliver_late:
            for message_id in message_ids:
                self._outstanding.pop(message_id, None)

    def die(self, device: str) -> None:
        """Kill the device's trainer: what it owes is answered with an error at once."""
        self.up.discard(device)
        for message_id, (owner, _) in list(self._outstanding.items()):
            if owner == device:
                del self._outstanding[message_id]
                self._ready.put_nowait(Reply(device, message_id, None, (), 0, "the trainer died"))

    def leave(self, device: str) -> None:
        """Shut the device out for good: it cannot be addressed any more, and what it owes is answered with an error."""
        self.left.add(device)
        self.die(device)

    def come_back(self, device: str) -> None:
        """Start the device's trainer: it gets what waits for it."""
        self.up.add(device)
        self._changed.set()
        for message_id, (owner, _) in list(self._outstanding.items()):
            if owner == device:
                self._start(message_id)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def inject(self, reply: Reply) -> None:
        """Put a reply on the wire that no behaviour made."""
        self._ready.put_nowait(reply)

    def _start(self, message_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(message_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message_id: str) -> None:
        device, instruction = self._outstanding[message_id]
        model = (
            np.frombuffer(instruction.model, "<f4")
            if instruction.model or not instruction.n_parameters
            else self.models[instruction.job_id]
        )
        assert sha256_hex(model.tobytes()) == instruction.model_sha256
        answer = self.behaviours.get(device, self.behaviour)(device, instruction, model)
        if answer is None:
            return
        await asyncio.sleep(answer.delay_s)
        if message_id not in self._outstanding:
            self.late += 1
            return
        if not self.deliver_late:
            del self._outstanding[message_id]
        for _ in range(answer.copies):
            self._ready.put_nowait(make_reply(device, message_id, instruction, answer))


def make_reply(device: str, message_id: str, instruction: TrainInstruction, answer: Answer) -> Reply:
    """Return the reply that a device with this answer sends."""
    if answer.delta is None:
        data = b""
    elif isinstance(answer.delta, bytes):
        data = answer.delta
    else:
        # As real devices do; raw bytes are for devices that do not.
        central = instruction.privacy.mode in CENTRAL_MODES
        delta = clip_to(answer.delta, instruction.privacy.clip_norm_l2) if central else answer.delta
        data = pack(delta, instruction.packing, np.random.default_rng(0))
    fields: dict[str, Any] = {
        "job_id": instruction.job_id,
        "round": instruction.round,
        "exchange": instruction.exchange,
        "n_parameters": instruction.n_parameters,
        "packing": instruction.packing,
        "update_bytes": len(data),
        "update_sha256": sha256_hex(data),
        "error": answer.error,
    }
    if instruction.privacy.mode == "example":
        fields |= {
            "ledger_head": sha256_hex(f"{device} {instruction.round}".encode()),
            "ledger_length": 2 * instruction.round,
            "epsilon": 0.25 * instruction.round,
            "delta": 1e-5,
        }
    header = TrainReply(**(fields | answer.header))
    view = memoryview(data)
    cut = answer.split or len(data) or 1
    payload = [view[at : at + cut] for at in range(0, len(data), cut)]
    return Reply(device, message_id, header, payload, len(data), None)
