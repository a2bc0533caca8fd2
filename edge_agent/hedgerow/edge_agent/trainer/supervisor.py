"""Runs the trainers that the server's desired state asks for: starts, watches, reports, restarts and stops them.

Imported by the always-on agent: it loads neither torch nor flwr. One thread waits on all children at once (their
process file descriptors) and on wishes from other threads; nothing polls.
"""

from __future__ import annotations

import logging
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hedgerow.edge_agent.trainer.exits import describe
from hedgerow.edge_agent.trainer.restart import RestartPolicy, decide

log = logging.getLogger(__name__)
OnExit = Callable[[str, int], None]
Command = Callable[[str], Sequence[str]]
STOP_GRACE_S = 5.0


@dataclass
class _Child:
    """One wanted job: its process if it runs, when it may start otherwise; ``starts_at`` None means given up."""

    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    started_at: float = 0.0
    starts_at: float | None = 0.0
    failures: int = 0


class TrainerSupervisor:
    """Keeps one trainer per wanted job. ``on_exit(job_id, code)`` is called for each one that ends unasked."""

    def __init__(
        self,
        home: Path,
        on_exit: OnExit,
        *,
        command: Command | None = None,
        policy: RestartPolicy | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._on_exit = on_exit
        self._command = command or (lambda job_id: trainer_command(home, job_id))
        self._policy = policy or RestartPolicy()
        self._environment = {**os.environ, **trainer_environment(), **(environment or {})}
        self._lock = threading.Lock()
        self._wanted: frozenset[str] = frozenset()
        self._stopping = self._restarting = False
        self._grace_s = STOP_GRACE_S
        self._children: dict[str, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._run, name="hedgerow-trainer-supervisor", daemon=True)

    def start(self) -> None:
        """Start the supervisor's thread."""
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread.start()

    def want(self, job_ids: Collection[str]) -> None:
        """Set the jobs that should have a trainer; others are stopped. A job given up is tried again once it was
        absent from a call and comes back.
        """
        with self._lock:
            self._wanted = frozenset(job_ids)
        self._wake()

    def restart(self) -> None:
        """Stop the trainers that run and start all wanted ones afresh, those given up too."""
        with self._lock:
            self._restarting = True
        self._wake()

    def running(self) -> dict[str, int]:
        """Return the process id of each trainer that runs, by job."""
        with self._lock:
            return {job: c.process.pid for job, c in self._children.items() if c.process is not None}

    def state(self) -> str:
        """Return the word for the reported state: ``idle``, ``running``, ``starting`` or ``failed``."""
        with self._lock:
            children = list(self._children.values())
        if any(child.process is not None for child in children):
            return "running"
        if any(child.starts_at is not None for child in children):
            return "starting"
        return "failed" if any(child.failures for child in children) else "idle"

    def stop(self, deadline_s: float = STOP_GRACE_S) -> None:
        """Stop all trainers, killing what has not ended by the deadline, and the thread."""
        with self._lock:
            self._stopping, self._grace_s = True, deadline_s
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"w")
        except BlockingIOError:
            pass  # the pipe is full of earlier wakes: one is enough
        except OSError:
            log.debug("supervisor is closed")

    def _run(self) -> None:
        while True:
            with self._lock:
                wanted, stopping = self._wanted, self._stopping
                restarting, self._restarting = self._restarting, False
            if stopping:
                break
            if restarting:
                self._stop_children(list(self._children))
            self._follow(wanted)
            for key, _ in self._selector.select(self._until_next_start()):
                if key.data is None:
                    os.read(self._wake_read, 4096)
                else:
                    self._reap(key.data)
        self._stop_children(list(self._children))
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _follow(self, wanted: frozenset[str]) -> None:
        self._stop_children([job for job in self._children if job not in wanted])
        for job_id in sorted(wanted):
            with self._lock:
                child = self._children.setdefault(job_id, _Child())
            due = child.starts_at is not None and child.starts_at <= time.monotonic()
            if child.process is None and due:
                self._spawn(job_id, child)

    def _until_next_start(self) -> float | None:
        starts = [
            c.starts_at for c in self._children.values() if c.process is None and c.starts_at is not None
        ]
        return max(0.0, min(starts) - time.monotonic()) if starts else None

    def _spawn(self, job_id: str, child: _Child) -> None:
        """Start a trainer whose standard input is a pipe held here: its end tells it that the agent is gone."""
        child.started_at = time.monotonic()
        try:
            process = subprocess.Popen(
                list(self._command(job_id)),
                stdin=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            log.error("trainer of job %s cannot be started: %s", job_id, error)
            self._ended(job_id, child, 127)
            return
        child.pidfd = os.pidfd_open(process.pid)
        self._selector.register(child.pidfd, selectors.EVENT_READ, job_id)
        with self._lock:
            child.process = process
        log.info("trainer of job %s started, process %d", job_id, process.pid)

    def _reap(self, job_id: str) -> None:
        child = self._children[job_id]
        code = self._release(child, None)
        self._ended(job_id, child, code)

    def _release(self, child: _Child, patience_s: float | None) -> int:
        """Wait for a child (kill it after ``patience_s``), free what was held for it, return its exit code."""
        process = child.process
        if process is None:
            return 0
        try:
            code = process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        if process.stdin is not None:
            process.stdin.close()
        with self._lock:
            child.process = None
        return code

    def _ended(self, job_id: str, child: _Child, code: int) -> None:
        verdict = decide(self._policy, code, time.monotonic() - child.started_at, child.failures)
        child.failures = verdict.failures
        child.starts_at = None if verdict.delay_s is None else time.monotonic() + verdict.delay_s
        log.log(
            logging.INFO if code == 0 else logging.WARNING,
            "trainer of job %s ended: %s (%d); %s",
            job_id,
            describe(code),
            code,
            "not started again" if verdict.delay_s is None else f"next start in {verdict.delay_s:g} s",
        )
        try:
            self._on_exit(job_id, code)
        except Exception:
            log.exception("the report of a trainer's exit failed")

    def _stop_children(self, job_ids: Sequence[str]) -> None:
        """End these trainers: ask all, wait for all until the grace is over, kill the rest."""
        for job_id in job_ids:
            process = self._children[job_id].process
            if process is not None:
                process.terminate()
        deadline = time.monotonic() + self._grace_s
        for job_id in job_ids:
            self._release(self._children[job_id], max(0.0, deadline - time.monotonic()))
            with self._lock:
                del self._children[job_id]


def trainer_command(home: Path, job_id: str) -> list[str]:
    """Return the command line of a trainer."""
    return [sys.executable, "-m", "hedgerow.edge_agent.trainer", "--home", str(home), "--job", job_id]


def trainer_environment() -> dict[str, str]:
    """Return what a trainer's environment needs beside the agent's: one thread, no telemetry of libraries."""
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
