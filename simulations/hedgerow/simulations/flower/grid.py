"""Carrying out a batch over Flower's grid: a message a task, updates added as they arrive."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from hedgerow.simulations.engine.protocol import Doubles, Outcome, Vector
from hedgerow.simulations.flower.client import outcome_of, question, vector
from hedgerow.simulations.flower.values import Asked, Done, Failed
from hedgerow.simulations.lean.lattice import Adder

PULL_INTERVAL_S: Final = 0.02
_RAISED: Final = (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.LOAD_CLIENT_APP_EXCEPTION)


class Rounds:
    """Sends tasks to virtual nodes. Memory is one sum whatever the cohort, unless single updates are asked for."""

    def __init__(self, grid: Grid, nodes: int) -> None:
        """Wait until the ``nodes`` are there: Flower registers them while its ServerApp starts."""
        self._grid = grid
        while len(found := sorted(grid.get_node_ids())) < nodes:
            time.sleep(PULL_INTERVAL_S)
        self._nodes = found
        self._adder = Adder()

    def carry_out(self, asked: Asked, wait: Callable[[float], None]) -> Done | Failed:
        """Return what the batch came to. ``wait`` sleeps between looks, and raises when nobody waits for the answer."""
        total = np.zeros(next(iter(asked.models.values())).size, np.int64)
        outcomes: list[Outcome | None] = [None] * len(asked.tasks)
        updates: dict[int, Vector] = {}
        controls: list[Doubles | None] = [None] * len(asked.tasks)
        places = self._push(asked)
        if len(places) != len(asked.tasks):
            return Failed("lost", f"Flower took {len(places)} of {len(asked.tasks)} messages")
        while places:
            for reply in self._grid.pull_messages(list(places)):
                place = places.pop(reply.metadata.reply_to_message_id)
                if reply.has_error():
                    self._forget(list(places))
                    return _failed(reply)
                task, content = asked.tasks[place], reply.content
                outcomes[place] = outcome_of(content)
                if "update" in content:
                    update = vector(content["update"])
                    self._adder.add(total, update[None], [task.weight], asked.exponent)
                    if asked.each:
                        updates[task.device] = update
                if "control" in content:
                    controls[place] = vector(content["control"]).astype(np.float64)
            if places:
                wait(PULL_INTERVAL_S)
        found = tuple(outcome for outcome in outcomes if outcome is not None)
        changes = [change for change in controls if change is not None]
        return Done(total, found, updates, np.sum(changes, axis=0) if changes else None)

    def _push(self, asked: Asked) -> dict[str, int]:
        """Send a message a task; return the tasks' places by message."""
        models = {version: ArrayRecord([model]) for version, model in asked.models.items()}
        control = None if asked.control is None else ArrayRecord([asked.control])
        messages = [
            Message(
                question(task, models[task.version], control),
                dst_node_id=self._nodes[place % len(self._nodes)],
                message_type=MessageType.TRAIN,
            )
            for place, task in enumerate(asked.tasks)
        ]
        return {message: place for place, message in enumerate(self._grid.push_messages(messages))}

    def _forget(self, messages: list[str]) -> None:
        """Take what has arrived meanwhile off the grid; later replies stay with it."""
        if messages:
            list(self._grid.pull_messages(messages))


def _failed(reply: Message) -> Failed:
    return Failed(
        "raised" if reply.error.code in _RAISED else "lost", reply.error.reason or "no reason given"
    )
