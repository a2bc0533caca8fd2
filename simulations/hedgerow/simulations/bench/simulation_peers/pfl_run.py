"""pfl-research over the benchmark's task, by the interpreter that holds it: FederatedAveraging on a SimulatedBackend.

``PFL_PYTHON -m …simulation_peers.pfl_run FOLDER PROCESSES``: the first process starts the others, with the variables that
torchrun sets, and tells them what it is asked.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.simulations.bench.simulation_peers.nets import as_input, as_vector, load_vector, make_net
from hedgerow.simulations.bench.simulation_peers.speaking import carry_out, commands, reply
from hedgerow.simulations.bench.simulation_peers.task import PeerTask, Setup, read_task

RANK = "RANK"
_NEVER = 10**9


class Sequence:
    """Gives pfl the benchmark's cohorts one user after the other; a user is ``(round, device)``."""

    def __init__(self, task: PeerTask, cohort: int) -> None:
        self._task, self._size = task, cohort
        self._round = 0
        self._waiting: list[int] = []

    def __call__(self) -> tuple[int, int]:
        """Return the next user."""
        if not self._waiting:
            self._round += 1
            self._waiting = self._task.cohort(self._round, self._size)
        return self._round, self._waiting.pop(0)


class Weights:
    """How much work a user is, so that pfl divides a cohort evenly over its processes."""

    def __init__(self, task: PeerTask) -> None:
        self._task = task

    def __getitem__(self, user: tuple[int, int]) -> int:
        """Return a user's number of examples."""
        return self._task.count(user[1])


class PflRounds:
    """Rounds of FederatedAveraging, weighted by examples, central optimizer SGD with rate 1."""

    def __init__(self, task: PeerTask) -> None:
        self._task = task
        self._x = as_input(task.net, task.x)
        self._y = None if task.y is None else torch.from_numpy(task.y)
        self._net: Any = make_net(task.net)
        setattr(self._net, "metrics", self._metrics)  # noqa: B010  (a module's own are tensors and modules)
        self._data: Any = None
        self.configure(Setup(1))

    def _metrics(self, *batch: torch.Tensor, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002
        from pfl.metrics import Weighted

        with torch.no_grad():
            return {"loss": Weighted(float(self._net.loss(*batch)) * len(batch[0]), len(batch[0]))}

    def configure(self, setup: Setup) -> None:
        """Begin again with the first model. Raises ValueError with ``private``: pfl has no per-example DP-SGD."""
        from pfl.aggregate.simulate import SimulatedBackend
        from pfl.aggregate.weighting import WeightByDatapoints
        from pfl.algorithm.federated_averaging import FederatedAveraging
        from pfl.data.federated_dataset import FederatedDataset
        from pfl.model.pytorch import PyTorchModel

        if setup.private:
            raise ValueError("pfl has no per-example DP-SGD on the device")
        self._drop_data()
        self._setup = setup
        load_vector(self._net, self._task.model)
        self._model = PyTorchModel(
            self._net, torch.optim.SGD, torch.optim.SGD(self._net.parameters(), lr=1.0)
        )
        self._data = FederatedDataset(self._user, Sequence(self._task, setup.cohort), Weights(self._task))
        self._backend = SimulatedBackend(self._data, self._data, postprocessors=[WeightByDatapoints()])
        self._algorithm, self._done = FederatedAveraging(), 0

    def _drop_data(self) -> None:
        """End the process that draws users for the data before: pfl keeps it until the program ends."""
        sampler: Any = getattr(self._data, "_sample_fn", None)
        if hasattr(sampler, "set_cohort_size"):
            sampler.__del__()

    def _user(self, user: tuple[int, int]) -> Any:
        from pfl.data.pytorch import PyTorchTensorDataset

        rows = torch.from_numpy(self._task.rows(*user))
        x = self._x[rows]
        return PyTorchTensorDataset((x,) if self._y is None else (x, self._y[rows]), user_id=str(user))

    def rounds(self, n: int) -> list[float]:
        """Run ``n`` central iterations and time them by a callback. The first of all evaluates too, as pfl does."""
        from pfl.algorithm.base import NNAlgorithmParams
        from pfl.callback.base import TrainingProcessCallback
        from pfl.hyperparam import NNTrainHyperParams
        from pfl.metrics import Metrics

        times = [time.perf_counter()]

        class Timer(TrainingProcessCallback):  # type: ignore[misc]
            def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
                times.append(time.perf_counter())
                return False, Metrics()

        self._done += n
        self._algorithm.run(
            NNAlgorithmParams(
                central_num_iterations=self._done,
                evaluation_frequency=_NEVER,
                train_cohort_size=self._setup.cohort,
                val_cohort_size=None,
            ),
            self._backend,
            self._model,
            NNTrainHyperParams(
                local_num_epochs=1,
                local_learning_rate=self._task.learning_rate,
                local_batch_size=self._task.batch,
            ),
            callbacks=[Timer()],
        )
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    def model(self) -> npt.NDArray[np.float32]:
        """Return the central model."""
        return as_vector(self._net)


def main(arguments: list[str]) -> None:
    """Serve rounds in rank 0; follow it in the others."""
    folder, processes = Path(arguments[0]), int(arguments[1])
    others = _start_others(arguments, processes)
    seeds = np.random.default_rng(1).integers(2**31, size=3)
    random.seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))
    torch.manual_seed(int(seeds[2]))
    from pfl.internal.ops import pytorch_ops  # noqa: F401  (joins the process group)

    runner = PflRounds(read_task(folder))
    if os.environ.get(RANK, "0") != "0":
        while (asked := _shared(None)) is not None:
            if asked["do"] != "model":  # every process has it; rank 0 alone writes it down
                carry_out(runner, asked)
        return
    for command in commands():
        if processes > 1:
            _shared(command)
        reply(carry_out(runner, command))
    if processes > 1:
        _shared(None)
    for other in others:
        other.wait(30)


def _start_others(arguments: list[str], processes: int) -> list[subprocess.Popen[bytes]]:
    if processes == 1 or RANK in os.environ:
        return []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "TORCHELASTIC_RUN_ID": "hedgerow-bench",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    module = "hedgerow.simulations.bench.simulation_peers.pfl_run"
    others = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **common, RANK: str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
        )
        for rank in range(1, processes)
    ]
    os.environ.update({**common, RANK: "0", "LOCAL_RANK": "0"})
    return others


def _shared(asked: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return rank 0's command in every process."""
    box = [asked]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


if __name__ == "__main__":
    main(sys.argv[1:])
