"""What a virtual node does with a message: train one device as the lean engine does, in Ray's actor, and send its update back."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import ray
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from hedgerow.simulations.engine.protocol import Batch, Outcome, Task, Vector
from hedgerow.simulations.flower.values import REFERENCE

if TYPE_CHECKING:
    from hedgerow.simulations.flower.values import World
    from hedgerow.simulations.lean.engine import LeanEngine

_engines: dict[str, LeanEngine] = {}


def client_app(world: ray.ObjectRef[World]) -> ClientApp:
    """Return the ClientApp whose actors find their world in Ray's object store."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:  # noqa: ARG001
        return Message(trained(message.content, _engine(world)), reply_to=message)

    return app


def question(task: Task, model: ArrayRecord, control: ArrayRecord | None) -> RecordDict:
    """Return the content of the message that asks for ``task`` from ``model``."""
    alone = msgspec.structs.replace(task, version=0, weight=1.0)
    content = RecordDict({"model": model, "order": ConfigRecord({"task": msgspec.msgpack.encode(alone)})})
    if control is not None:
        content["control"] = control
    return content


def trained(content: RecordDict, engine: LeanEngine) -> RecordDict:
    """Return the answer to ``question``: the outcome, the update if it counts, the change of control with SCAFFOLD."""
    task = msgspec.msgpack.decode(cast("bytes", _record(content, "order")["task"]), type=Task)
    control = vector(_record(content, "control")) if "control" in content else None
    answer = engine.train(Batch([vector(_record(content, "model"))], [task], "each", control))
    reply = RecordDict({"outcome": ConfigRecord({"outcome": msgspec.msgpack.encode(answer.outcomes[0])})})
    if task.device in answer.updates:
        reply["update"] = ArrayRecord([answer.updates[task.device]])
    if answer.control is not None:
        reply["control"] = ArrayRecord([answer.control])
    return reply


def outcome_of(content: RecordDict) -> Outcome:
    """Return the outcome that an answer tells of."""
    return msgspec.msgpack.decode(cast("bytes", _record(content, "outcome")["outcome"]), type=Outcome)


def vector(record: Any) -> Vector:
    """Return the one array of a record."""
    return cast("Vector", np.asarray(record.to_numpy_ndarrays()[0]))


def _record(content: RecordDict, name: str) -> Any:
    return content[name]


def _engine(world: ray.ObjectRef[World]) -> LeanEngine:
    """Return this process's engine for ``world``, made when first asked for."""
    key = world.hex()
    if key not in _engines:
        from hedgerow.simulations.lean.engine import LeanEngine

        # Ray's arrays are read-only, and nothing writes to examples.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        found: World = ray.get(world)
        engine = LeanEngine(
            found.scenario,
            found.recipe,
            found.population,
            workers=0,
            choices=REFERENCE,
            state_folder=found.state_folder,
        )
        engine.open()
        _engines[key] = engine
    return _engines[key]
