"""The trainer's loop: receive an instruction, answer it, and survive a server that is away for a while."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from hedgerow.edge_agent.trainer.fleet_node import FleetNode
from hedgerow.shared.errors import ContentError, IntegrityError, TransportError
from hedgerow.shared.job import TrainInstruction, TrainReply

log = logging.getLogger(__name__)
Answer = Callable[[TrainInstruction], tuple[TrainReply, bytes]]
RECEIVE_TIMEOUT_S = 30.0
REPLY_TRIES = 3


class Backoff:
    """Seconds to wait after each failure in a row: doubled from ``first_s`` up to ``longest_s``."""

    def __init__(self, first_s: float = 0.25, longest_s: float = 15.0) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._failures = 0

    def success(self) -> None:
        """Start over."""
        self._failures = 0

    def failure(self) -> float:
        """Count a failure and return how long to wait."""
        self._failures += 1
        return float(min(self._first_s * 2 ** (self._failures - 1), self._longest_s))


def serve(
    node: FleetNode, answer: Answer, *, stop: threading.Event | None = None, backoff: Backoff | None = None
) -> None:
    """Answer instructions until ``stop`` is set, or the process is asked to end.

    A server that cannot be reached, or sends what cannot be read, is tried again without end: the agent, which sees
    the desired state, decides when the trainer goes. AuthError, and whatever else ``answer`` raises, ends the loop.
    """
    waits, stop = backoff or Backoff(), stop or threading.Event()
    while not stop.is_set():
        try:
            received = node.receive(RECEIVE_TIMEOUT_S)
            if received is not None:
                instruction, handle = received
                header, payload = answer(instruction)
                _send(node, handle, header, payload, stop, waits)
            waits.success()
        except IntegrityError:
            raise
        except (TransportError, ContentError) as error:
            wait_s = waits.failure()
            log.warning("no exchange with the server (%s); next try in %.1f s", error, wait_s)
            stop.wait(wait_s)


def _send(
    node: FleetNode, handle: Any, header: TrainReply, payload: bytes, stop: threading.Event, waits: Backoff
) -> None:
    """Send a reply, again if need be: it is the same bytes, counted once. Raises TransportError after the last try."""
    for attempt in range(1, REPLY_TRIES + 1):
        try:
            node.reply(handle, header, payload)
            break
        except TransportError:
            if attempt == REPLY_TRIES or stop.wait(waits.failure()):
                raise
    log.info("round %d answered: %s, %d bytes", header.round, header.error or "update", len(payload))
