"""The engine's side of Flower: its process started, asked, and ended with everything that it started."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.flower.processes import end_all, family
from hedgerow.simulations.flower.values import Asked, Done, Failed, Ready, Start, World

MAX_NODES: Final = 256
"""Virtual nodes: Flower looks at each ten times a second. Which device a message is about stands in the message."""
_START_S: Final = 180.0
_END_S: Final = 15.0
_LONGEST_FOLDER: Final = 40  # Ray's socket paths add about sixty characters, and may have 107
_LOG_TAIL: Final = 2000


class LostError(Exception):
    """Flower's process, Ray or an actor is gone; the batch may be asked again of a new one."""


class Runtime:
    """A running Flower. ``close`` leaves no process and no file behind."""

    def __init__(self, world: World, workers: int, folder: Path) -> None:
        """Start it, and wait until its nodes are there. Raises EngineError with the log's end if that fails.

        Raises ConfigError for a recipe that cannot be handed to another process.
        """
        self._folder = folder
        self._log = folder / "flower.log"
        ours, theirs = socket.socketpair()
        nodes = min(world.population.devices, MAX_NODES)
        start = _pickled(Start(world, workers, nodes, folder))
        with theirs, self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hedgerow.simulations.flower.driver", str(theirs.fileno())],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._link = Connection(ours.detach())
        self._closed = False
        try:
            self._link.send_bytes(start)
            self._await_ready()
        except BaseException as error:
            tail = self._tail()
            self.close()
            if isinstance(error, LostError | OSError):
                raise EngineError(f"Flower's simulation did not start: {error}\n{tail}") from error
            raise

    def train(self, asked: Asked) -> Done:
        """Return what a batch came to. Raises EngineError with what a device's training raised, LostError."""
        reply = self._ask(asked)
        if isinstance(reply, Failed):
            if reply.kind == "raised":
                raise EngineError(f"training in Flower's ClientApp: {reply.reason}")
            raise LostError(reply.reason)
        if not isinstance(reply, Done):
            raise LostError(f"Flower's process answered {reply!r}")
        return reply

    def close(self) -> None:
        """End Flower, Ray and the actors. Idempotent."""
        if self._closed:
            return
        self._closed = True
        members = family(self._process.pid)
        with contextlib.suppress(OSError):
            self._link.send(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        members += [member for member in family(self._process.pid) if member not in members]
        end_all(members)
        self._process.wait()
        self._link.close()

    def _ask(self, asked: Asked) -> Any:
        try:
            self._link.send(asked)
            return self._link.recv()
        except (EOFError, OSError) as error:
            raise LostError(f"Flower's process is gone: {self._tail()}") from error
        except BaseException:
            # Ctrl-C, mostly: half a message may be on its way, and nobody can talk after that.
            self._link.close()
            raise

    def _await_ready(self) -> None:
        if not self._link.poll(_START_S):
            raise LostError(f"nothing within {_START_S:.0f} s")
        try:
            reply = self._link.recv()
        except EOFError as error:
            raise LostError("its process ended") from error
        if not isinstance(reply, Ready):
            raise LostError(reply.reason if isinstance(reply, Failed) else f"it answered {reply!r}")

    def _tail(self) -> str:
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")[-_LOG_TAIL:].strip()
        return ""


def new_folder() -> Path:
    """Return a new folder for Flower and Ray, with a name short enough for Ray's sockets."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="hr-", dir=usual if len(usual) <= _LONGEST_FOLDER else "/tmp"))  # noqa: S108


def drop_folder(folder: Path) -> None:
    """Remove what ``new_folder`` made."""
    shutil.rmtree(folder, ignore_errors=True)


def _pickled(start: Start) -> bytes:
    try:
        return pickle.dumps(start, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"recipe {start.world.recipe.name}: engine flower hands it to other processes, which pickle cannot do ({error}): "
            "define it in a module that can be imported"
        ) from error


def _environment() -> dict[str, str]:
    """Return the surroundings of Flower's process: what can be imported here can be there, and nothing reports home."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
