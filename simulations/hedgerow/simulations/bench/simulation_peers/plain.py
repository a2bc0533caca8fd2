"""The plain PyTorch loop that people write: one process, devices one after another, state dictionaries averaged.

``python -m …simulation_peers.plain FOLDER [THREADS]``: with 0 threads torch keeps its default number of them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.simulations.bench.simulation_peers.local import train_plain, train_private
from hedgerow.simulations.bench.simulation_peers.nets import as_input, as_vector, load_vector, make_net
from hedgerow.simulations.bench.simulation_peers.speaking import serve
from hedgerow.simulations.bench.simulation_peers.task import PeerTask, Setup, read_task


class PlainLoop:
    """FedAvg weighted by examples, in a loop."""

    def __init__(self, task: PeerTask) -> None:
        self._task = task
        self._x = as_input(task.net, task.x)
        self._y = None if task.y is None else torch.from_numpy(task.y)
        self._net = make_net(task.net)
        self.configure(Setup(1))

    def configure(self, setup: Setup) -> None:
        """Begin again with the first model."""
        self._setup, self._round = setup, 0
        load_vector(self._net, self._task.model)
        self._state = {name: value.clone() for name, value in self._net.state_dict().items()}

    def rounds(self, n: int) -> list[float]:
        """Run and time ``n`` rounds."""
        seconds = []
        for _ in range(n):
            start = time.perf_counter()
            self._round += 1
            self._one_round()
            seconds.append(time.perf_counter() - start)
        return seconds

    def _one_round(self) -> None:
        total: dict[str, torch.Tensor] = {}
        weight = 0
        for device in self._task.cohort(self._round, self._setup.cohort):
            state = self._train(device)
            count = self._task.count(device)
            weight += count
            for name, value in state.items():
                total[name] = total[name] + count * value if name in total else count * value
        self._state = {name: value / weight for name, value in total.items()}

    def _train(self, device: int) -> dict[str, Any]:
        rows = torch.from_numpy(self._task.rows(self._round, device))
        x, y = self._x[rows], None if self._y is None else self._y[rows]
        if self._setup.private:
            return train_private(self._task, self._setup, self._state, x, y)
        self._net.load_state_dict(self._state)
        return train_plain(self._net, x, y, self._task.batch, self._task.learning_rate)

    def model(self) -> npt.NDArray[np.float32]:
        """Return the averaged model."""
        self._net.load_state_dict(self._state)
        return as_vector(self._net)


def main(arguments: list[str]) -> None:
    """Serve the loop over the task of a folder."""
    if int(arguments[1]):
        torch.set_num_threads(int(arguments[1]))
    serve(PlainLoop(read_task(Path(arguments[0]))))


if __name__ == "__main__":
    main(sys.argv[1:])
