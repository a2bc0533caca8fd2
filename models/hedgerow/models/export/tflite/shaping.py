"""Operators that move or rename axes: Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Concat, Identity."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hedgerow.models.export.tflite.graph import Node
from hedgerow.models.export.tflite.values import Context, Value, natural


def reshape(context: Context, node: Node) -> None:
    """Write Reshape to constant sizes; 0 keeps a size, one -1 is worked out."""
    value = context.value(node, 0)
    sizes = [int(size) for size in context.constant(node, 1)]
    if node.attributes.get("allowzero") and 0 in sizes:
        raise node.unsupported("an empty tensor")
    sizes = [value.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = math.prod(value.shape) // max(known, 1)
    _to_shape(context, node, value, tuple(sizes))


def flatten(context: Context, node: Node) -> None:
    """Write Flatten to two axes."""
    value = context.value(node, 0)
    axis = int(node.attributes.get("axis", 1)) % (len(value.shape) + 1)
    _to_shape(context, node, value, (math.prod(value.shape[:axis]), math.prod(value.shape[axis:])))


def squeeze(context: Context, node: Node) -> None:
    """Write Squeeze of constant axes; the other axes stay in the order they have in memory."""
    value = context.value(node, 0)
    given = context.optional_constant(node, 1)
    rank = len(value.shape)
    if given is None:
        axes = {axis for axis, size in enumerate(value.shape) if size == 1}
    else:
        axes = {int(axis) % rank for axis in given}
    if any(value.shape[axis] != 1 for axis in axes) or 0 in axes:
        raise node.unsupported(f"axes {sorted(axes)} of {value.shape}")
    kept = [axis for axis in range(rank) if axis not in axes]
    order = tuple(kept.index(axis) for axis in value.axes if axis in kept)
    _renamed(context, node, value, tuple(value.shape[axis] for axis in kept), order)


def unsqueeze(context: Context, node: Node) -> None:
    """Write Unsqueeze at constant axes; the new axes come last in memory."""
    value = context.value(node, 0)
    given = context.constant(node, 1)
    rank = len(value.shape) + given.size
    axes = sorted({int(axis) % rank for axis in given})
    old = [axis for axis in range(rank) if axis not in axes]
    rest = iter(value.shape)
    shape = tuple(1 if axis in axes else next(rest) for axis in range(rank))
    _renamed(context, node, value, shape, (*(old[axis] for axis in value.axes), *axes))


def _renamed(
    context: Context, node: Node, value: Value, shape: tuple[int, ...], order: tuple[int, ...]
) -> None:
    if not shape or shape[0] != value.shape[0]:
        raise node.unsupported("a change of the batch axis")
    memory = tuple(shape[axis] for axis in order)
    context.put(
        node.outputs[0], Value(context.reshaped(value.tensor, value.memory_shape, memory), shape, order)
    )


def _to_shape(context: Context, node: Node, value: Value, shape: tuple[int, ...]) -> None:
    if math.prod(shape) != math.prod(value.shape):
        raise node.unsupported(f"{value.shape} to {shape}")
    source = context.ordered(value, natural(len(value.shape)))
    context.put(
        node.outputs[0], Value(context.reshaped(source, value.shape, shape), shape, natural(len(shape)))
    )


def transpose(context: Context, node: Node) -> None:
    """Rename axes; nothing is written until an operator needs another order."""
    value = context.value(node, 0)
    rank = len(value.shape)
    order = tuple(node.attributes.get("perm", reversed(range(rank))))
    shape = tuple(value.shape[axis] for axis in order)
    context.put(node.outputs[0], Value(value.tensor, shape, tuple(order.index(axis) for axis in value.axes)))


def concat(context: Context, node: Node) -> None:
    """Write Concat of computed values along one axis."""
    values = [context.value(node, position) for position in range(len(node.inputs))]
    first = values[0]
    axis = int(node.attributes["axis"]) % len(first.shape)
    if axis == 0:
        raise node.unsupported("concatenation along the batch")
    shape = list(first.shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    tensors = [context.ordered(value, first.axes) for value in values]
    made = context.new(node.outputs[0], tuple(shape), first.axes)
    options = schema.ConcatenationOptionsT()
    options.axis = int(np.array(first.axes).tolist().index(axis))
    context.builder.operator("CONCATENATION", tensors, made.tensor, options)


def identity(context: Context, node: Node) -> None:
    """Rename a value."""
    context.put(node.outputs[0], context.value(node, 0))


WRITERS = {
    "Concat": concat,
    "Dropout": identity,
    "Flatten": flatten,
    "Identity": identity,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
