"""A trainer's place in the fleet: an active Flower node while it runs, instructions in, replies out.

Ordering rules:

- The node is activated before anything else, and again by itself where the server has restarted.
- One instruction at a time; the next ``receive`` confirms the one before, so that a broken connection repeats it.
- A newer process of this device and job takes over; this one then gets ``ReplacedError`` and must end.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.edge_agent.trainer.fleet.calls import Calls, InactiveError, Outcome
from hedgerow.edge_agent.trainer.fleet.connection import Bytes, Connection, Endpoint
from hedgerow.edge_agent.trainer.fleet.errors import ReplacedError
from hedgerow.edge_agent.trainer.fleet.models import ModelCache
from hedgerow.edge_agent.trainer.fleet.objects import Handle, pack_reply, read_instruction
from hedgerow.edge_agent.trainer.fleet.signing import NodeSigner
from hedgerow.shared.errors import AuthError, HedgerowError, TransportError
from hedgerow.shared.job import TrainInstruction, TrainReply

T = TypeVar("T")


class FleetNode:
    """The trainer's connection to the server, for one job. All methods belong to one thread, but for ``interrupt``.

    A thread ``hedgerow-node-heartbeat`` tells the server during long training that this process lives.
    """

    def __init__(
        self,
        server_url: str,
        identity: IdentityFiles,
        job_id: str,
        *,
        heartbeat_interval_s: float = 20.0,
        reconnect: Reconnect | None = None,
    ) -> None:
        context = device_context(identity)
        endpoint = Endpoint.parse(server_url)
        signer = NodeSigner(identity.key)
        activation = secrets.token_hex(16)
        self._connection = Connection(endpoint, context)
        self._heart = Connection(endpoint, context)
        self._calls = Calls(self._connection, signer, job_id, activation)
        self._beats = Calls(self._heart, signer, job_id, activation)
        self._reconnect = reconnect or Reconnect(first_s=0.1)
        self._models = ModelCache()
        self._heartbeat_interval_s = heartbeat_interval_s
        self._node_id = 0
        self._received = ""
        self._closing = threading.Event()
        self._replaced = False
        self._polling = False
        self._heard_s = float("-inf")
        self._thread: threading.Thread | None = None

    def activate(self, timeout_s: float = 60.0) -> None:
        """Become the device's node for the job, retrying while the server is out of reach.

        Raises AuthError if the server refuses this device, TransportError if it stays out of reach,
        JobClosedError if it stays without the job.
        """
        self._retry(timeout_s, self._activate)

    def receive(self, timeout_s: float) -> tuple[TrainInstruction, Handle] | None:
        """Return the next instruction as soon as there is one, or None after ``timeout_s`` or ``interrupt``.

        Raises ReplacedError, AuthError, ContentError for an instruction that cannot be read, TransportError or
        JobClosedError if nothing else was heard of the server for all of ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while not self._closing.is_set():
            left_s = max(0.0, deadline - time.monotonic())
            body = self._retry(left_s, partial(self._poll, left_s))
            if body is not None:
                instruction, handle = read_instruction(body)
                self._received = handle.message_id
                return instruction, handle
            if time.monotonic() >= deadline:
                break
        return None

    def fetch_model(self, sha256: str, timeout_s: float = 300.0) -> bytes | bytearray:
        """Return the model of that hash, from memory if it was the last one fetched.

        Raises IntegrityError if what came is another, ContentError if the job has moved on to a newer one,
        TransportError if it cannot be had in time.
        """
        return self._models.get(
            sha256, lambda: self._retry(timeout_s, lambda: self._calls.model(sha256, timeout_s))
        )

    def reply(
        self, handle: Handle, header: TrainReply, payload: Bytes = b"", *, timeout_s: float = 600.0
    ) -> Outcome:
        """Send a reply, again if the connection breaks; ``late`` means that the round did not wait for it.

        Raises ContentError if the server cannot read it, TransportError if it cannot be sent in time.
        """
        parts = pack_reply(self._node_id, handle, header, payload)
        return self._retry(timeout_s, lambda: self._calls.reply(handle.message_id, parts, timeout_s))

    def interrupt(self) -> None:
        """Make a waiting ``receive`` return; callable from any thread. The node stays active until ``close``."""
        self._closing.set()
        self._connection.interrupt()

    def close(self) -> None:
        """Leave: the node is deactivated, if the server can be told within seconds."""
        self._closing.set()
        self._heart.interrupt()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        if self._node_id and not self._replaced:
            # A server out of reach notices by itself that the heartbeats stopped.
            with contextlib.suppress(HedgerowError):
                self._calls.deactivate(self._node_id)
        self._node_id = 0
        self._connection.close()
        self._heart.close()

    def _activate(self) -> None:
        self._node_id = self._calls.activate(self._heartbeat_interval_s)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="hedgerow-node-heartbeat", daemon=True)
            self._thread.start()

    def _retry(self, timeout_s: float, call: Callable[[], T]) -> T:
        """Call until it succeeds; TransportError is tried again for ``timeout_s``, at least once."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                result = call()
            except InactiveError:
                self._activate()
            except ReplacedError:
                self._replaced = True
                raise
            except TransportError as error:
                pause_s = self._reconnect.failed(error)
                if time.monotonic() + pause_s > deadline or self._closing.wait(pause_s):
                    raise
            else:
                self._reconnect.succeeded()
                self._heard_s = time.monotonic()
                return result

    def _beat(self) -> None:
        """Beat where the server would otherwise hear nothing for long.

        The connection is closed after each beat: a thousand idle ones would cost the server a quarter of a megabyte each.
        """
        while not self._closing.wait(self._heartbeat_interval_s):
            if not self._is_silent(time.monotonic()):
                continue
            try:
                self._beats.heartbeat(self._node_id, self._heartbeat_interval_s)
            except (ReplacedError, AuthError):
                return  # the main thread learns the same from its own next request
            except HedgerowError:
                continue
            finally:
                self._heart.close()

    def _is_silent(self, now_s: float) -> bool:
        """Whether a beat is due: any request is a sign of life, so a cohort in quick rounds need not shake hands for one.

        A device is heard of every one and a half intervals at least; the server waits for three.
        """
        return not self._polling and now_s - self._heard_s > self._heartbeat_interval_s / 2

    def _poll(self, wait_s: float) -> bytearray | None:
        self._polling = True
        try:
            return self._calls.next(wait_s, self._received)
        finally:
            self._polling = False
