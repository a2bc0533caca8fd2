"""An ONNX graph as the converter reads it: nodes with attributes, constants, and who uses what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from hedgerow.shared.errors import ContentError, UnsupportedError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One ONNX node; ``inputs`` may hold empty names for optional inputs left out."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def unsupported(self, why: str) -> UnsupportedError:
        """Return the error that names this node, for the caller to raise."""
        return UnsupportedError(f"TFLite export: node {self.name!r} ({self.kind}): {why}")


@dataclass
class Graph:
    """One float32 input, one output, nodes in order; ``constants`` holds initialisers and Constant nodes."""

    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    nodes: list[Node]
    constants: dict[str, Array]
    uses: Counter[str] = field(default_factory=Counter)

    def only_consumer(self, name: str) -> Node | None:
        """Return the single node that reads ``name``, or None if several do or it is the graph's output."""
        if self.uses[name] != 1 or name == self.output_name:
            return None
        return next((node for node in self.nodes if name in node.inputs), None)


def read_graph(data: bytes) -> Graph:
    """Return an ONNX model's graph with batch 1.

    Raises ContentError if the bytes are not ONNX, UnsupportedError for several inputs or outputs, or a free axis
    other than the batch.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError is not importable by a stable name
        raise ContentError(f"not an ONNX model: {error}") from error
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UnsupportedError(
            f"TFLite export: {len(inputs)} inputs and {len(model.graph.output)} outputs; one of each is supported"
        )
    graph = Graph(inputs[0].name, _shape(inputs[0]), model.graph.output[0].name, [], constants)
    for position, proto in enumerate(model.graph.node):
        _add(graph, proto, position)
    graph.uses = Counter(name for node in graph.nodes for name in node.inputs)
    graph.uses[graph.output_name] += 1
    return graph


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    kind = value.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise UnsupportedError(f"TFLite export: input {value.name!r} is not float32")
    sizes = [axis.dim_value for axis in kind.shape.dim]
    if not sizes or any(size < 1 for size in sizes[1:]):
        raise UnsupportedError(f"TFLite export: input {value.name!r} has a free axis beside the batch")
    return (sizes[0] or 1, *sizes[1:])


def _add(graph: Graph, proto: onnx.NodeProto, position: int) -> None:
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute}
    if proto.op_type == "Constant":
        if "value" not in attributes:
            raise UnsupportedError(f"TFLite export: constant {proto.name!r} without a tensor")
        graph.constants[proto.output[0]] = np.asarray(numpy_helper.to_array(attributes["value"]))
        return
    name = proto.name or f"{proto.op_type}_{position}"
    graph.nodes.append(Node(name, proto.op_type, tuple(proto.input), tuple(proto.output), attributes))
