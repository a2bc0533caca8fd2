"""Stock FedAvg over two nodes; writes when each round was aggregated."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class TimedFedAvg(FedAvg):
    """FedAvg that notes the time of each aggregation."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
        self.times: list[float] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as FedAvg does."""
        result = super().aggregate_train(server_round, replies)
        self.times.append(time.monotonic())
        return result


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that the run's configuration asks for."""
    config = context.run_config
    model = np.zeros(int(config["values"]), np.float32)
    strategy = TimedFedAvg()
    strategy.start(grid, ArrayRecord([model]), num_rounds=int(config["rounds"]))
    Path(str(config["out"])).write_text(json.dumps(strategy.times))
