"""The ClientApp of the benchmark, as users of Flower write it: the model in, one local epoch, the model out.

It is a module of its own so that Ray's actors import it by name. Which device a message is about stands in its config: node ids
are drawn anew in each run, and the cohorts must be the same for all engines.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from hedgerow.simulations.bench.simulation_peers.local import train_plain, train_private
from hedgerow.simulations.bench.simulation_peers.nets import as_input, make_net
from hedgerow.simulations.bench.simulation_peers.task import PeerTask, Setup, read_task

FOLDER = "HEDGEROW_BENCH_TASK"
app = ClientApp()


@lru_cache(maxsize=1)
def load_data() -> tuple[PeerTask, torch.Tensor, torch.Tensor | None]:
    """Return the task and its examples, read once a process."""
    task = read_task(Path(os.environ[FOLDER]))
    return task, as_input(task.net, task.x), None if task.y is None else torch.from_numpy(task.y)


@app.train()
def train(msg: Message, context: Context) -> Message:  # noqa: ARG001
    """Train the device that the message names."""
    task, x, y = load_data()
    config: Any = msg.content["config"]
    device = int(config["device"])
    rows = torch.from_numpy(task.rows(int(config["server-round"]), device))
    arrays: Any = msg.content["arrays"]
    state = arrays.to_torch_state_dict()
    mine = x[rows], None if y is None else y[rows]
    if config["private"]:
        setup = Setup(1, private=True, noise=float(config["noise"]), whole=bool(config["whole"]))
        trained = train_private(task, setup, state, *mine)
    else:
        net = make_net(task.net)
        net.load_state_dict(state)
        trained = train_plain(net, *mine, task.batch, task.learning_rate)
    content = RecordDict(
        {
            "arrays": ArrayRecord(trained),
            "metrics": MetricRecord({"num-examples": task.count(device)}),
            "config": ConfigRecord({"device": device}),
        }
    )
    return Message(content, reply_to=msg)
