"""One engine's process: started, told what to do, bounded in time, and ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.shared.errors import HedgerowError
from hedgerow.simulations.bench.simulation_peers.speaking import REPLIES
from hedgerow.simulations.bench.simulation_peers.task import Setup
from hedgerow.simulations.flower.processes import end_all, family

_LOG_TAIL = 1500
_END_S = 20.0


class PeerError(HedgerowError):
    """An engine ended, raised, or took too long; the message ends with its log."""


class Peer:
    """A running engine. ``started`` is when its process began, by ``time.perf_counter``."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        read, write = os.pipe()
        self._log_path = log
        self._buffer = b""
        self._replies = read
        self.started = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command),
                env={**environment, REPLIES: str(write)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(write,),
                start_new_session=True,
            )
        os.close(write)
        if self._process.stdin is None:
            raise PeerError("no way to command it")
        self._commands = self._process.stdin

    @property
    def pid(self) -> int:
        """Process id of the engine's first process."""
        return self._process.pid

    def configure(self, setup: Setup, timeout_s: float) -> None:
        """Begin again with the first model. Raises PeerError."""
        fields = {name: getattr(setup, name) for name in ("cohort", "private", "noise", "whole")}
        self._ask({"do": "configure", "setup": fields}, timeout_s)

    def rounds(self, n: int, timeout_s: float) -> list[float]:
        """Run ``n`` rounds; return their seconds. Raises PeerError."""
        return [float(value) for value in self._ask({"do": "rounds", "n": n}, timeout_s)["seconds"]]

    def model(self, path: Path, timeout_s: float) -> npt.NDArray[np.float32]:
        """Return its model, handed over by way of ``path``. Raises PeerError."""
        self._ask({"do": "model", "path": str(path)}, timeout_s)
        try:
            return np.asarray(np.load(path), np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise PeerError(f"its model cannot be read: {error}") from error

    def end(self) -> None:
        """End the engine and every process that it started. Idempotent."""
        if self._replies < 0:
            return
        members = family(self.pid)
        with contextlib.suppress(OSError, ValueError):
            self._commands.write(b'{"do": "end"}\n')
            self._commands.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        members += [each for each in family(self.pid) if each not in members]
        end_all(members[1:])
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._replies)
        self._replies = -1

    def _ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            self._commands.write(json.dumps(command).encode() + b"\n")
            self._commands.flush()
        except OSError as error:
            raise PeerError(f"it ended: {self._tail()}") from error
        line = self._line(time.monotonic() + timeout_s)
        if line is None:
            raise PeerError(f"{command['do']!r} took more than {timeout_s:.0f} s: {self._tail()}")
        return dict(msgspec.json.decode(line))

    def _line(self, deadline: float) -> bytes | None:
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._replies], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            got = os.read(self._replies, 65536)
            if not got:
                raise PeerError(f"it ended: {self._tail()}")
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _tail(self) -> str:
        text = self._log_path.read_text(errors="replace")
        return text[-_LOG_TAIL:].strip() or "its log is empty"
