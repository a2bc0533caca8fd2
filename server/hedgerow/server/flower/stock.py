"""The wire of stock ClientApps: the model as an ``ArrayRecord`` out, an ``ArrayRecord`` back as a float32 delta.

A stock app gets ``arrays`` (one float32 vector named ``model``) and ``config``, as Flower's own strategies send them, and
answers with one ``ArrayRecord`` holding as many values in all, and possibly a ``MetricRecord`` with ``num-examples``.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_object_children_ids_from_object_content
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError

from hedgerow.server.flower.messages import Decoded, GetObject
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError
from hedgerow.shared.job import TrainInstruction, TrainReply

ARRAY_NAME = "model"


def stock_record(instruction: TrainInstruction, model: memoryview) -> RecordDict:
    """Return the records that a stock ClientApp's train function receives."""
    vector = np.frombuffer(model, "<f4")
    config = ConfigRecord(
        {
            "server-round": instruction.round,
            "job": instruction.job_id,
            "local-epochs": instruction.training.local_epochs,
            "batch-size": instruction.training.batch_size,
            "lr": instruction.training.learning_rate,
        }
    )
    return RecordDict({"arrays": ArrayRecord({ARRAY_NAME: Array(vector)}), "config": config})


def decode_stock(get: GetObject, reply_id: str, instruction: TrainInstruction, model: memoryview) -> Decoded:
    """Read a stock app's reply as a packed float32 delta. Raises ContentError if it is malformed."""
    try:
        message = inflate_object_from_contents(reply_id, _collect(get, reply_id))
        if not isinstance(message, Message):
            raise ContentError("the reply is not a message")
        if message.has_error():
            return Decoded(None, (), f"the device's app failed: {(message.error.reason or '')[:200]}")
        delta = _delta(message.content, np.frombuffer(model, "<f4"))
        return Decoded(_header(message.content, instruction, delta), (delta.view(np.uint8).data,))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, DecodeError) as error:
        raise ContentError(f"malformed reply: {error}") from error


def _collect(get: GetObject, root: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    todo = [root]
    while todo:
        object_id = todo.pop()
        if object_id in found:
            continue
        content = get(object_id)
        if not content or len(found) > fleetwire.MAX_FRAMES:
            raise ContentError("an object of the reply is missing, or there are too many")
        found[object_id] = content
        todo += get_object_children_ids_from_object_content(content)
    return found


def _delta(records: RecordDict, model: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    arrays = list(records.array_records.values())
    if len(arrays) != 1:
        raise ContentError(f"expected one array record in the reply, got {len(arrays)}")
    parts = [np.asarray(part) for part in arrays[0].to_numpy_ndarrays()]
    if any(part.dtype.kind != "f" for part in parts):
        raise ContentError("the reply's arrays must be floating point")
    n = sum(part.size for part in parts)
    if n != model.size:
        raise ContentError(f"{n} values where the model has {model.size}")
    delta = np.empty(n, "<f4")
    start = 0
    for part in parts:
        with np.errstate(over="ignore"):
            delta[start : start + part.size] = part.ravel()
        start += part.size
    delta -= model
    return delta


def _header(records: RecordDict, instruction: TrainInstruction, delta: npt.NDArray[np.float32]) -> TrainReply:
    metrics: dict[str, float] = {}
    for record in records.metric_records.values():
        for name, value in record.items():
            if isinstance(value, int | float) and len(metrics) < 64:
                metrics[name] = float(value)
    examples = metrics.pop("num-examples", None)
    return TrainReply(
        job_id=instruction.job_id,
        round=instruction.round,
        exchange=instruction.exchange,
        n_parameters=delta.size,
        packing="float32",
        update_bytes=delta.nbytes,
        update_sha256=hashlib.sha256(delta.view(np.uint8).data).hexdigest(),
        n_samples=None if examples is None else int(examples),
        metrics=metrics,
    )
