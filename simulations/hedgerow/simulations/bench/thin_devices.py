"""Many thin devices in one process: each with its own key, certificate and connections, speaking as an agent does.

A device keeps a long poll for what the server wants of it, sends heartbeats, and answers the rounds of a job with a
random update of the model's size: what is left out is telemetry, inference and training. Reads folders made by
``bench.fleet``; one line of JSON with what was measured goes to standard output once standard input closes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import heapq
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from hedgerow.edge_agent.link.client import DeviceClient
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.edge_agent.trainer.fleet import FleetNode, JobClosedError
from hedgerow.edge_agent.trainer.loop import RECEIVE_TIMEOUT_S
from hedgerow.models.recipe import find_recipe, recipe_hash
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.job import TrainInstruction, TrainReply
from hedgerow.shared.messages import DesiredState, Heartbeat, RecipeReport, ReportedState
from hedgerow.simulations.bench.echo_device import identity_in

POLL_S: Final = 30.0
GRACE_S: Final = 15.0
BEATERS: Final = 16
"""Threads that send the heartbeats of all devices; each device keeps its own connection."""
NICE: Final = 10
SWITCH_S: Final = 0.05
"""How long one device's thread computes before another of its process may: at CPython's 5 ms, hundreds that wait for their
turn wake up two hundred times a second each, and a machine is busy with nothing else.
"""
_ACTIVATE_S: Final = 300.0


class Measured(msgspec.Struct):
    """What one process saw. Heartbeats are (when sent, latency, how late it was sent) in seconds, the first by the monotonic
    clock that all processes of a Linux machine share; ``failures`` counts what went wrong by its kind.
    """

    heartbeats: list[tuple[float, float, float]] = []
    answered: int = 0
    failures: dict[str, int] = {}


class ThinDevice:
    """One device. ``beat`` is for one thread at a time; the long poll and the round have threads of their own."""

    def __init__(self, url: str, folder: Path, recipe: RecipeReport, seen: Tally) -> None:
        self.name = folder.name
        self._url = url
        self._identity = identity_in(folder)
        self._recipe = recipe
        self._seen = seen
        self._beats = DeviceClient(url, device_context(self._identity))
        self._polls = DeviceClient(url, device_context(self._identity))
        self._revision = 0
        self._began_s = time.monotonic()
        self._trained: set[str] = set()
        self._ending = threading.Event()
        self.thread = threading.Thread(target=self._poll, name=f"poll {self.name}", daemon=True)

    def beat(self, late_s: float) -> None:
        """Send one heartbeat, ``late_s`` after its time, and note how long it took."""
        message = Heartbeat(
            device=self.name,
            sent_us=time.time_ns() // 1000,
            agent_version="thin",
            uptime_s=time.monotonic() - self._began_s,
            pss_bytes=1,
            disk_free_bytes=1,
            readings_total=0,
            quarantined_total=0,
            inferences_total=0,
            alarms_total=0,
            outbox_pending=0,
            clock_ok=True,
            broker_connected=True,
            state=ReportedState(self._revision, recipes=(self._recipe,), profile="thin", profile_version=1),
        )
        began = time.monotonic()
        try:
            self._beats.post("/v1/device/heartbeat", message)
        except HedgerowError as error:
            self._seen.failed("heartbeat", error)
        else:
            self._seen.beat(began, time.monotonic() - began, late_s)

    def end(self) -> None:
        """Let go of the server."""
        self._ending.set()
        self._polls.interrupt()
        self._beats.close()

    def _poll(self) -> None:
        revision = -1
        while not self._ending.is_set():
            try:
                answer = self._polls.get(
                    f"/v1/device/desired?revision={revision}&wait_s={POLL_S:g}", timeout_s=POLL_S + GRACE_S
                )
                if answer.status == 200:
                    state = answer.decode(DesiredState)
                    revision = self._revision = state.revision
                    self._follow(state)
            except HedgerowError as error:
                if not self._ending.is_set():
                    self._seen.failed("long poll", error)
                    self._ending.wait(1.0)
        self._polls.close()

    def _follow(self, state: DesiredState) -> None:
        for job in state.jobs:
            if job.job_id not in self._trained:
                self._trained.add(job.job_id)
                threading.Thread(target=self._train, args=(job.job_id,), daemon=True).start()

    def _train(self, job_id: str) -> None:
        node = FleetNode(self._url, self._identity, job_id)
        try:
            node.activate(_ACTIVATE_S)
            while not self._ending.is_set():
                if (got := node.receive(RECEIVE_TIMEOUT_S)) is None:
                    continue
                instruction, handle = got
                if not instruction.model:
                    node.fetch_model(instruction.model_sha256)
                header, update = answer_to(instruction, self.name)
                node.reply(handle, header, update)
                self._seen.answer()
        except JobClosedError:
            return
        except HedgerowError as error:
            self._seen.failed("round", error)
        finally:
            with contextlib.suppress(HedgerowError):
                node.close()


def answer_to(instruction: TrainInstruction, device: str) -> tuple[TrainReply, bytes]:
    """Return a reply with a small random update of the device's own, float32."""
    rng = np.random.default_rng([instruction.round, *device.encode()])
    update = (rng.standard_normal(instruction.n_parameters, np.float32) / 1000).astype("<f4").tobytes()
    header = TrainReply(
        job_id=instruction.job_id,
        round=instruction.round,
        exchange=instruction.exchange,
        n_parameters=instruction.n_parameters,
        packing=instruction.packing,
        update_bytes=len(update),
        update_sha256=hashlib.sha256(update).hexdigest(),
        n_samples=1,
    )
    return header, update


class Tally:
    """Collects what all threads measure."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.measured = Measured([], 0, {})

    def beat(self, sent_s: float, took_s: float, late_s: float) -> None:
        """Note a heartbeat."""
        with self._lock:
            self.measured.heartbeats.append((sent_s, took_s, late_s))

    def answer(self) -> None:
        """Note a round answered."""
        with self._lock:
            self.measured.answered += 1

    def failed(self, what: str, error: HedgerowError) -> None:
        """Note what went wrong."""
        key = f"{what}: {type(error).__name__}: {str(error)[-120:]}"
        with self._lock:
            self.measured.failures[key] = self.measured.failures.get(key, 0) + 1


class Beater:
    """Sends each device's heartbeat every ``interval_s``, begun at a random moment, from a few threads."""

    def __init__(self, devices: Sequence[ThinDevice], interval_s: float) -> None:
        now = time.monotonic()
        # First beats are spread as those of a fleet that has run for a while.
        self._due = [(now + random.random() * interval_s, n) for n in range(len(devices))]  # noqa: S311
        heapq.heapify(self._due)
        self._devices = devices
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(BEATERS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads."""
        self._ended.set()
        for thread in self._threads:
            thread.join(GRACE_S)

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                due, number = heapq.heappop(self._due) if self._due else (time.monotonic() + 1.0, -1)
            wait_s = due - time.monotonic()
            if self._ended.wait(max(0.0, wait_s)):
                return
            if number < 0:
                continue
            self._devices[number].beat(max(0.0, time.monotonic() - due))
            with self._lock:
                heapq.heappush(self._due, (max(due + self._interval_s, time.monotonic()), number))


def main(argv: Sequence[str] | None = None) -> int:
    """Run until standard input closes."""
    options = argparse.ArgumentParser(description="thin devices of a benchmark")
    options.add_argument("--url", required=True)
    options.add_argument("--recipe", required=True)
    options.add_argument("--interval", type=float, required=True)
    options.add_argument("folders", type=Path, nargs="+")
    args = options.parse_args(argv)
    # Devices are elsewhere: on a machine that the server shares with a thousand of them, it goes first.
    os.nice(NICE)
    sys.setswitchinterval(SWITCH_S)
    threading.stack_size(256 * 1024)
    recipe = RecipeReport(args.recipe, recipe_hash(find_recipe(args.recipe)))
    seen = Tally()
    devices = [ThinDevice(args.url, folder, recipe, seen) for folder in args.folders]
    for device in devices:
        device.thread.start()
    beater = Beater(devices, args.interval)
    sys.stdin.read()
    beater.close()
    for device in devices:
        device.end()
    sys.stdout.write(msgspec.json.encode(seen.measured).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
