"""Where each ONNX value lives in the TFLite file, and in which order its axes lie there.

ONNX images are (n, c, h, w), TFLite's operators want (n, h, w, c). Each value keeps its ONNX shape and the order
of its axes in memory; an ONNX Transpose only renames axes, and a TRANSPOSE is written only where an operator needs
another order than the value has.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hedgerow.models.export.tflite.builder import Builder
from hedgerow.models.export.tflite.graph import Array, Graph, Node

Axes = tuple[int, ...]
NHWC: Axes = (0, 2, 3, 1)
NLC: Axes = (0, 2, 1)


@dataclass(frozen=True)
class Value:
    """An ONNX value: ``shape`` as ONNX sees it; axis ``k`` in memory is ONNX axis ``axes[k]``."""

    tensor: int
    shape: tuple[int, ...]
    axes: Axes

    @property
    def memory_shape(self) -> tuple[int, ...]:
        """Shape as it lies in memory."""
        return tuple(self.shape[axis] for axis in self.axes)


def natural(rank: int) -> Axes:
    """Return the axes order in which memory agrees with ONNX."""
    return tuple(range(rank))


class Context:
    """What operator writers share: the graph being read, the file being written, the values so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = Builder()
        self._values: dict[str, Value] = {}
        self._ordered: dict[tuple[int, Axes], int] = {}
        self._reshaped_from: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._names: Counter[int] = Counter()
        self._reshaped_output: dict[int, int] = {}
        self.absorbed: set[str] = set()

    def value(self, node: Node, position: int) -> Value:
        """Return the node's input at ``position``. Raises UnsupportedError if it is a constant or missing."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        if name not in self._values:
            raise node.unsupported(
                f"input {position} must be computed from the model's input, not a constant"
            )
        return self._values[name]

    def constant(self, node: Node, position: int) -> Array:
        """Return the node's constant input at ``position``. Raises UnsupportedError if it is computed or missing."""
        found = self.optional_constant(node, position)
        if found is None:
            raise node.unsupported(f"input {position} must be a constant")
        return found

    def optional_constant(self, node: Node, position: int) -> Array | None:
        """Return the node's constant input, or None where it is left out. Raises UnsupportedError if computed."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        if name and name not in self.graph.constants:
            raise node.unsupported(f"input {position} must be a constant")
        return self.graph.constants.get(name)

    def is_constant(self, name: str) -> bool:
        """Say whether ``name`` is a constant of the graph."""
        return name in self.graph.constants

    def put(self, name: str, value: Value) -> None:
        """Record what an ONNX name stands for."""
        self._values[name] = value
        self._names[value.tensor] += 1

    def put_reshaped(self, name: str, value: Value, made: int) -> None:
        """Record a value that is only a reshape of ``made``, a tensor that no ONNX name stands for."""
        self.put(name, value)
        self._reshaped_output[value.tensor] = made

    def fuse(self, node: Node, activation: str) -> bool:
        """Let the operator that makes the node's input apply ``activation``; False if it cannot, or others read it."""
        value = self.value(node, 0)
        if self.graph.only_consumer(node.inputs[0]) is not node or self._names[value.tensor] != 1:
            return False
        return self.builder.fuse(self._reshaped_output.get(value.tensor, value.tensor), activation)

    def new(self, name: str, shape: tuple[int, ...], axes: Axes) -> Value:
        """Add an activation tensor for the ONNX value ``name`` and record it."""
        value = Value(-1, shape, axes)
        value = Value(self.builder.tensor(name, value.memory_shape), shape, axes)
        self.put(name, value)
        return value

    def ordered(self, value: Value, axes: Axes) -> int:
        """Return a tensor that holds ``value`` with its axes in this order, moving data only where it must."""
        if value.axes == axes:
            return value.tensor
        key = (value.tensor, axes)
        if key not in self._ordered:
            moved = tuple(value.axes.index(axis) for axis in axes)
            self._ordered[key] = self._move(value, moved)
        return self._ordered[key]

    def _move(self, value: Value, moved: Axes) -> int:
        shape = value.memory_shape
        target = tuple(shape[k] for k in moved)
        long = [k for k in moved if shape[k] > 1]
        if long == sorted(long):
            return self.reshaped(value.tensor, shape, target)
        out = self.builder.tensor(f"order_{value.tensor}_{''.join(map(str, moved))}", target)
        order = self.builder.constant(f"axes_{out}", np.array(moved, np.int32))
        self.builder.operator("TRANSPOSE", [value.tensor, order], out, schema.TransposeOptionsT())
        return out

    def reshaped(self, tensor: int, shape: tuple[int, ...], target: tuple[int, ...]) -> int:
        """Return a tensor with the same values in memory as ``tensor`` of ``shape``, under the shape ``target``.

        A reshape of a reshape starts from the first tensor; what nothing reads is dropped when the file is written.
        """
        source, original = self._reshaped_from.get(tensor, (tensor, shape))
        if target == original:
            return source
        out = self.builder.tensor(f"shape_{source}_{'x'.join(map(str, target))}", target)
        sizes = self.builder.constant(f"dims_{out}", np.array(target, np.int32))
        options = schema.ReshapeOptionsT()
        options.newShape = list(target)
        self.builder.operator("RESHAPE", [source, sizes], out, options)
        self._reshaped_from[out] = (source, original)
        return out
