"""Flower's simulation runtime on Ray with Flower's own FedAvg, over the benchmark's task.

``python -m …simulation_peers.flower_run FOLDER ACTORS``: one virtual node a device, actors of one CPU each.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from hedgerow.simulations.bench.simulation_peers import flower_client
from hedgerow.simulations.bench.simulation_peers.nets import as_vector, load_vector, make_net
from hedgerow.simulations.bench.simulation_peers.speaking import serve
from hedgerow.simulations.bench.simulation_peers.task import PeerTask, Setup, read_task


class SameCohorts(FedAvg):
    """FedAvg with the benchmark's cohorts instead of drawn ones; it notes when each round began and ended."""

    def __init__(self, task: PeerTask) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.task = task
        self.setup = Setup(1)
        self.done = 0
        self.seconds: list[float] = []
        self._began = 0.0

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,  # noqa: ARG002
        grid: Grid,
    ) -> Iterable[Message]:
        """Ask the cohort's devices to train."""
        self._began = time.perf_counter()
        round = self.done + server_round
        nodes = sorted(grid.get_node_ids())
        common = {
            "server-round": round,
            "private": self.setup.private,
            "noise": self.setup.noise,
            "whole": self.setup.whole,
        }
        return [
            Message(
                RecordDict({"arrays": arrays, "config": ConfigRecord({**common, "device": device})}),
                message_type=MessageType.TRAIN,
                dst_node_id=nodes[device],
            )
            for device in self.task.cohort(round, self.setup.cohort)
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average as FedAvg does. Raises RuntimeError if a device failed."""
        found = list(replies)
        failed = [reply.error.reason for reply in found if reply.has_error()]
        if failed:
            raise RuntimeError(f"{len(failed)} clients failed: {failed[0]}")
        averaged = super().aggregate_train(server_round, found)
        self.seconds.append(time.perf_counter() - self._began)
        return averaged


class FlowerRounds:
    """Rounds of FedAvg on a running grid."""

    def __init__(self, task: PeerTask, grid: Grid) -> None:
        while len(list(grid.get_node_ids())) < task.devices:  # they are registered while a ServerApp starts
            time.sleep(0.02)
        self._task = task
        self._grid = grid
        self._net = make_net(task.net)
        self._strategy = SameCohorts(task)
        self.configure(Setup(1))

    def configure(self, setup: Setup) -> None:
        """Begin again with the first model."""
        self._strategy.setup, self._strategy.done = setup, 0
        load_vector(self._net, self._task.model)
        self._arrays = ArrayRecord(self._net.state_dict())

    def rounds(self, n: int) -> list[float]:
        """Run ``n`` rounds by the strategy's own loop."""
        self._strategy.seconds = []
        result = self._strategy.start(self._grid, self._arrays, num_rounds=n)
        self._strategy.done += n
        self._arrays = result.arrays
        return self._strategy.seconds

    def model(self) -> npt.NDArray[np.float32]:
        """Return the averaged model."""
        self._net.load_state_dict(self._arrays.to_torch_state_dict())
        return as_vector(self._net)


def main(arguments: list[str]) -> None:
    """Serve rounds over the task of a folder until told to end."""
    folder, actors = Path(arguments[0]), int(arguments[1])
    os.environ[flower_client.FOLDER] = str(folder)
    task = read_task(folder)
    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:  # noqa: ARG001
        serve(FlowerRounds(task, grid))

    with tempfile.TemporaryDirectory(prefix="hr-") as ray_folder:
        init: dict[str, Any] = {
            "num_cpus": actors,
            "include_dashboard": False,
            "log_to_driver": False,
            "_temp_dir": ray_folder,
        }
        run_simulation(
            server_app=server,
            client_app=flower_client.app,
            num_supernodes=task.devices,
            backend_config={"init_args": init, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )


if __name__ == "__main__":
    main(sys.argv[1:])
