"""The process that runs Flower's simulation runtime: ``python -m hedgerow.simulations.flower.driver DESCRIPTOR``.

A process of its own, because Flower and Ray change their process's environment, signals and logging, and may end it. It asks for
batches where a ServerApp's ``main`` would hold its rounds, and ends when the engine's end of the socket is closed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from typing import Any

import ray
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from hedgerow.simulations.flower.client import client_app
from hedgerow.simulations.flower.grid import Rounds
from hedgerow.simulations.flower.values import Failed, Ready, Reply, Start

_STORE_BYTES = 256 * 1024 * 1024


class _Link:
    """The driver's end of the socket. ``gone`` once the engine's process closed its end without saying so."""

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        self.gone = False

    def next(self) -> Any:
        """Return what comes next; None when there will be nothing more."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self.gone = True
            return None

    def tell(self, reply: Reply) -> None:
        """Send one reply, if anybody is there."""
        try:
            self._connection.send(reply)
        except OSError:
            self.gone = True

    def wait(self, seconds: float) -> None:
        """Sleep, unless the engine ends: it sends nothing else while a batch is trained. Raises _EndedError then."""
        if self._connection.poll(seconds):
            self.next()
            raise _EndedError


class _EndedError(Exception):
    """Nobody waits for the batch."""


def main(arguments: list[str]) -> int:
    """Serve batches until the engine ends; what Flower or Ray raise is told to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the engine, which closes the socket
    link = _Link(int(arguments[0]))
    start: Start | None = link.next()
    if start is None:
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="r", dir=start.folder, ignore_cleanup_errors=True) as folder:
            _join(start, folder)
            _simulate(start, link)
        return 0
    except Exception as error:  # noqa: BLE001 - whatever Flower and Ray raise, the engine must hear of it
        link.tell(Failed("lost", f"{type(error).__name__}: {error}"))
        return 1
    finally:
        ray.shutdown()
        if link.gone:
            shutil.rmtree(start.folder, ignore_errors=True)


def _simulate(start: Start, link: _Link) -> None:
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:  # noqa: ARG001
        rounds = Rounds(grid, start.nodes)
        link.tell(Ready())
        while (asked := link.next()) is not None:
            try:
                link.tell(rounds.carry_out(asked, link.wait))
            except _EndedError:
                return

    run_simulation(
        server_app=server,
        client_app=client_app(ray.put(start.world)),
        num_supernodes=start.nodes,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


def _join(start: Start, folder: str) -> None:
    """Start Ray here, or join the cluster that ``RAY_ADDRESS`` names, on whose machines Hedgerow must be installed too."""
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        options = {"log_to_driver": False}
    else:
        held = sum(phase.data.x.nbytes for phase in start.world.population.phases)
        options |= {
            "num_cpus": start.workers,
            "_temp_dir": folder,
            "object_store_memory": _STORE_BYTES + 2 * held,
        }
    ray.init(**options)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
