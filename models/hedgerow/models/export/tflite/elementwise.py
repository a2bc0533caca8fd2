"""Activations and arithmetic, value by value."""

from __future__ import annotations

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hedgerow.models.export.tflite.graph import Array, Node
from hedgerow.models.export.tflite.values import Context, Value, natural

_ARITHMETIC = {
    "Add": ("ADD", schema.AddOptionsT),
    "Sub": ("SUB", schema.SubOptionsT),
    "Mul": ("MUL", schema.MulOptionsT),
    "Div": ("DIV", schema.DivOptionsT),
}
_PLAIN = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}


def activation(context: Context, node: Node) -> None:
    """Write Relu, Sigmoid or Tanh; a Relu goes into the operator before it where nothing else reads that."""
    _activate(context, node, _PLAIN[node.kind])


def clip(context: Context, node: Node) -> None:
    """Write Clip from 0 to 6 as RELU6, and from 0 up as RELU."""
    low, high = context.optional_constant(node, 1), context.optional_constant(node, 2)
    bounds = (None if low is None else float(low), None if high is None else float(high))
    if bounds == (0.0, 6.0):
        _activate(context, node, "RELU6")
    elif bounds == (0.0, None):
        _activate(context, node, "RELU")
    else:
        raise node.unsupported(f"bounds {bounds}; 0 to 6 and 0 up are supported")


def _activate(context: Context, node: Node, kind: str) -> None:
    value = context.value(node, 0)
    if kind in ("RELU", "RELU6") and context.fuse(node, kind):
        context.put(node.outputs[0], value)
        return
    made = context.new(node.outputs[0], value.shape, value.axes)
    context.builder.operator(kind, [value.tensor], made.tensor)


def softmax(context: Context, node: Node) -> None:
    """Write Softmax over the last axis."""
    value = context.value(node, 0)
    rank = len(value.shape)
    if int(node.attributes.get("axis", -1)) % rank != rank - 1:
        raise node.unsupported("an axis other than the last")
    source = context.ordered(value, natural(rank))
    made = context.new(node.outputs[0], value.shape, natural(rank))
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    context.builder.operator("SOFTMAX", [source], made.tensor, options)


def arithmetic(context: Context, node: Node) -> None:
    """Write Add, Sub, Mul or Div of two values of one rank, or of a value and a constant that spreads over it."""
    kind, options = _ARITHMETIC[node.kind]
    computed = [position for position in (0, 1) if not context.is_constant(node.inputs[position])]
    if not computed:
        raise node.unsupported("two constants")
    values = [context.value(node, position) for position in computed]
    largest = max(values, key=lambda value: math.prod(value.shape))
    operands = [_operand(context, node, position, largest) for position in (0, 1)]
    made = context.new(node.outputs[0], largest.shape, largest.axes)
    context.builder.operator(kind, operands, made.tensor, options())


def batch_norm(context: Context, node: Node) -> None:
    """Write a BatchNormalization that no convolution took in as MUL and ADD per channel (axis 1)."""
    value = context.value(node, 0)
    scale, bias, mean, variance = (context.constant(node, position) for position in (1, 2, 3, 4))
    factor = scale / np.sqrt(variance + np.float32(node.attributes.get("epsilon", 1e-5)))
    shape = (1, -1) + (1,) * (len(value.shape) - 2)
    name = node.outputs[0]
    parts = [
        (f"{name}_scaled", "MUL", schema.MulOptionsT, factor),
        (name, "ADD", schema.AddOptionsT, bias - mean * factor),
    ]
    for step, kind, options, numbers in parts:
        spread = _spread(node, numbers.astype(np.float32).reshape(shape), value)
        constant = context.builder.constant(f"{step}_c", spread)
        made = context.new(step, value.shape, value.axes)
        context.builder.operator(kind, [value.tensor, constant], made.tensor, options())
        value = made


def _operand(context: Context, node: Node, position: int, like: Value) -> int:
    name = node.inputs[position]
    if context.is_constant(name):
        spread = _spread(node, context.constant(node, position), like)
        return context.builder.constant(f"{node.outputs[0]}_{position}", spread)
    value = context.value(node, position)
    pairs = zip(value.shape, like.shape, strict=False)
    if len(value.shape) != len(like.shape) or any(size not in (1, full) for size, full in pairs):
        raise node.unsupported(
            f"values of shapes {value.shape} and {like.shape}; one must spread over the other"
        )
    return context.ordered(value, like.axes)


def _spread(node: Node, constant: Array, like: Value) -> Array:
    rank = len(like.shape)
    if constant.dtype != np.float32 or constant.ndim > rank:
        raise node.unsupported(f"a constant of {constant.dtype} {constant.shape}")
    full = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    if any(size not in (1, like.shape[axis]) for axis, size in enumerate(full.shape)):
        raise node.unsupported(f"a constant of shape {constant.shape} over {like.shape}")
    return np.ascontiguousarray(full.transpose(like.axes))


WRITERS = {
    **dict.fromkeys(_PLAIN, activation),
    **dict.fromkeys(_ARITHMETIC, arithmetic),
    "BatchNormalization": batch_norm,
    "Clip": clip,
    "Softmax": softmax,
}
