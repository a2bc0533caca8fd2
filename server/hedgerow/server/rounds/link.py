"""What the round loop needs of the fleet: instructions out, replies in. The Flower adapter implements it.

Ordering rules that every implementation keeps:

- ``open_job`` before anything else of that job; it is idempotent, also after a restart of the server.
- A reply appears in ``next_reply`` only once all of its bytes are here; every reply handed out is released.
- Memory is bounded by the link, not by the loop: further uploads wait unread until a reply is released.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, Protocol

import msgspec

from hedgerow.shared.job import TrainInstruction, TrainReply

Wire = Literal["packed", "flower"]


class Reply(msgspec.Struct, frozen=True):
    """One device's complete answer to one instruction.

    ``payload`` is the packed update as one or more buffers in order, never joined. It is what the device sent with this
    header: a link whose transport does not bind the two checks ``header.update_sha256`` as the bytes pass by.
    ``n_bytes`` is what the reply took on the wire. ``header`` is None where the device could not answer; ``error``
    then says why in a few words (a trainer that died, a message that could not be read).
    """

    device: str
    message_id: str
    header: TrainReply | None
    payload: Sequence[memoryview]
    n_bytes: int
    error: str | None


class FleetLink(Protocol):
    """The server's side of the fleet, for one event loop."""

    async def open_job(self, job_id: str, wire: Wire = "packed") -> None:
        """Make the job known to the fleet; idempotent, also after a restart. ``flower`` jobs are for stock client apps."""

    async def close_job(self, job_id: str) -> None:
        """Forget the job; its devices are told to stop. Idempotent."""

    def publish_model(self, job_id: str, data: memoryview) -> str:
        """Offer ``data`` to the job's cohort under its SHA-256, which is returned; replaces the job's last one.

        The caller never changes ``data`` afterwards: the link may keep and serve the view itself, without a copy.
        """

    async def send(self, job_id: str, device: str, instruction: TrainInstruction) -> str:
        """Hand ``instruction`` to ``device``, waking it at once, and return the message's id.

        A device that is offline gets it when its trainer connects, unless it was abandoned by then. Raises
        TransportError where the link cannot address the device (yet): the loop tries again once it is online.
        """

    async def next_reply(self, job_id: str, timeout_s: float) -> Reply | None:
        """Return the next complete reply as soon as it is here, or None after ``timeout_s``.

        A trainer that dies with a message unanswered is a reply too, at once: ``error`` says so, no header. So a
        round never waits for an answer that cannot come, also if a new trainer is online before anyone looked.
        """

    async def release(self, reply: Reply) -> None:
        """Free the reply's payload; its upload slot goes to the next device. Idempotent."""

    def online(self, job_id: str) -> frozenset[str]:
        """Return the devices whose trainer is connected."""

    def gone(self) -> AbstractSet[str]:
        """Return the devices that left the fleet for good: they cannot be addressed, and nobody need wait for them.

        What such a device was asked before is answered by the link itself, with ``error`` and no header.
        """

    async def wait_online(self, job_id: str, count: int, timeout_s: float) -> bool:
        """Return True as soon as ``count`` trainers are connected, False after ``timeout_s``."""

    async def abandon(self, job_id: str, message_ids: Sequence[str]) -> None:
        """Tell that these messages are no longer waited for: late replies are discarded and counted."""
