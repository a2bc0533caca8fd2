"""Flower's strategies as aggregators of ours: what came goes through ``aggregate_train``, what comes out is the next model.

A fresh strategy is made for every round and given the state of the last one, so that a round is a function of values and a
restarted server continues as if it had never stopped. All updates of the round are held in memory, since most of
these strategies compare them: (cohort + about 3) model copies, and while the strategy works twice that.

The model goes in as one flat array. That changes nothing: every strategy of the catalogue works element by element
or on the distance between whole models.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid, strategy
from flwr.serverapp.exception import AggregationError as FlowerAggregationError

from hedgerow.server.aggregation.aggregator import AggregationError, Released, Update
from hedgerow.server.aggregation.payload import Payload
from hedgerow.server.strategies.catalogue import FLOWER, fewest_updates
from hedgerow.shared.errors import UpdateRejectedError
from hedgerow.shared.job import Packing
from hedgerow.shared.packing import Vector

_KEY: Final = "model"
_MOMENTS: Final = {
    "FedAvgM": ("momentum_vector",),
    "FedAdam": ("m_t", "v_t"),
    "FedAdagrad": ("m_t", "v_t"),
    "FedYogi": ("m_t", "v_t"),
}
"""The attributes in which a strategy keeps what it needs in the next round: a list or a dict of arrays, or None."""
_COUNTS: Final = frozenset({"num_malicious_nodes", "num_nodes_to_select"})


class FlowerAggregator:
    """Aggregates with one of the catalogue's strategies. Raises ValueError for a name outside it."""

    holds_updates = True

    def __init__(self, name: str, options: Mapping[str, float], n: int, packing: Packing) -> None:
        if name not in FLOWER:
            raise ValueError(f"{name!r} is not one of {', '.join(sorted(FLOWER))}")
        self._name = name
        self._options = dict(options)
        self._n = n
        self._packing: Packing = packing

    def initial_state(self) -> bytes:
        """Return the empty state: strategies make theirs in the first round."""
        return b""

    def open(self, round: int, state: bytes) -> FlowerSum:
        """Return an empty round."""
        return FlowerSum(self._name, self._options, self._n, self._packing, round, state)


class FlowerSum:
    """The updates of one round, all of them held."""

    def __init__(
        self, name: str, options: dict[str, float], n: int, packing: Packing, round: int, state: bytes
    ) -> None:
        self.count = 0
        self._name = name
        self._options = options
        self._n = n
        self._packing: Packing = packing
        self._round = round
        self._state = state
        self._held: dict[str, tuple[Vector, float, float | None]] = {}

    def add(self, update: Update) -> None:
        """Check and keep one update. Raises UpdateRejectedError; nothing was kept then."""
        if self._name == "QFedAvg" and (
            update.loss is None or not np.isfinite(update.loss) or update.loss < 0
        ):
            raise UpdateRejectedError(
                "malformed", "QFedAvg needs a training loss of 0 or more from each device"
            )
        payload = Payload(update.payload, self._n, self._packing)
        payload.check()
        vector = np.empty(self._n, np.float32)
        for offset, values in payload.blocks():
            vector[offset : offset + values.size] = values
        self._held[update.device] = (vector, update.weight, update.loss)
        self.count += 1

    def release(self, model: Vector) -> Released:
        """Return what the strategy makes of the updates, in the order of the devices' names.

        Raises AggregationError if they are too few for the strategy, or it gives no finite model.
        """
        if self.count == 0:
            return Released(model.copy(), self._state)
        needed = fewest_updates(self._name, int(self._options.get("num_malicious_nodes", 0)))
        if self.count < needed:
            raise AggregationError(f"flower:{self._name} needs {needed} updates, {self.count} came")
        chosen = _make(self._name, self._options)
        _restore(chosen, _MOMENTS.get(self._name, ()), self._state)
        # With a fraction of zero the strategy takes note of the model and asks no grid for nodes.
        chosen.fraction_train = 0.0
        chosen.configure_train(self._round, _record(model), ConfigRecord(), cast("Grid", None))
        try:
            arrays, _ = chosen.aggregate_train(self._round, self._replies(model))
        except FlowerAggregationError as error:
            raise AggregationError(f"flower:{self._name}: {error}") from error
        if arrays is None:
            raise AggregationError(f"flower:{self._name} made no model of {self.count} updates")
        after = arrays[_KEY].numpy().astype(np.float32).reshape(-1)
        if after.size != self._n or not np.isfinite(after).all():
            raise AggregationError(
                f"flower:{self._name} made a model of another size or with non-finite values"
            )
        return Released(after, _keep(chosen, _MOMENTS.get(self._name, ())))

    def _replies(self, model: Vector) -> list[Message]:
        replies = []
        for number, device in enumerate(sorted(self._held), start=1):
            vector, weight, loss = self._held.pop(device)
            figures: dict[str, Any] = {"num-examples": float(weight)}
            if loss is not None:
                figures["train_loss"] = float(loss)
            np.add(vector, model, out=vector)
            content = RecordDict({"arrays": _record(vector), "metrics": MetricRecord(figures)})
            replies.append(_message(number, self._round, content))
        return replies


def _make(name: str, options: Mapping[str, float]) -> strategy.FedAvg:
    kind = cast("type[strategy.FedAvg]", getattr(strategy, name))
    given: dict[str, Any] = {
        k: int(v) if k in _COUNTS else v for k, v in options.items() if k in FLOWER[name]
    }
    return kind(**given)


def _record(vector: Vector) -> ArrayRecord:
    return ArrayRecord({_KEY: Array(vector)})


def _message(number: int, round: int, content: RecordDict) -> Message:
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=number,
        dst_node_id=0,
        reply_to_message_id="",
        group_id=str(round),
        created_at=0.0,
        ttl=1.0,
        message_type=MessageType.TRAIN,
    )
    # The overloads leave out ``metadata``; the others stamp a message with the identity of a running ServerApp.
    return Message(content=content, metadata=metadata)  # type: ignore[call-overload, no-any-return]


def _keep(chosen: strategy.FedAvg, names: tuple[str, ...]) -> bytes:
    """Return a strategy's moments as an ``.npz``; empty where there are none."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        value = getattr(chosen, name)
        if value is not None:
            found[name] = value[_KEY] if isinstance(value, dict) else value[0]
    if not found:
        return b""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **found)
    return buffer.getvalue()


def _restore(chosen: strategy.FedAvg, names: tuple[str, ...], state: bytes) -> None:
    if not state:
        return
    with np.load(io.BytesIO(state), allow_pickle=False) as found:
        for name in names:
            if name in found:
                array = found[name]
                setattr(chosen, name, [array] if name == "momentum_vector" else {_KEY: array})
