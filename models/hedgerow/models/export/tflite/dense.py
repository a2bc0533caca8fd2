"""Dense operators: Gemm, and MatMul with its bias."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hedgerow.models.export.tflite.graph import Array, Node
from hedgerow.models.export.tflite.values import Context, natural


def gemm(context: Context, node: Node) -> None:
    """Write ``alpha A B + beta C`` with constant B and C as FULLY_CONNECTED."""
    if node.attributes.get("transA"):
        raise node.unsupported("a transposed first operand")
    weights = context.constant(node, 1)
    weights = weights if node.attributes.get("transB") else weights.T
    bias = context.optional_constant(node, 2)
    scaled = weights * np.float32(node.attributes.get("alpha", 1.0))
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), (weights.shape[0],)) * np.float32(
            node.attributes.get("beta", 1.0)
        )
    _connect(context, node, node.outputs[0], scaled, bias)


def matmul(context: Context, node: Node) -> None:
    """Write a product with a constant matrix as FULLY_CONNECTED, taking the bias from an Add that follows."""
    weights = context.constant(node, 1)
    if weights.ndim != 2:
        raise node.unsupported(f"a constant of {weights.ndim} axes; 2 are supported")
    follower = context.graph.only_consumer(node.outputs[0])
    bias, output = None, node.outputs[0]
    if follower is not None and follower.kind == "Add":
        other = next(name for name in follower.inputs if name != node.outputs[0])
        found = context.graph.constants.get(other)
        if found is not None and found.shape in ((weights.shape[1],), (1, weights.shape[1])):
            bias, output = found.reshape(-1), follower.outputs[0]
            context.absorbed.add(follower.outputs[0])  # outputs are unique, names need not be
    _connect(context, node, output, weights.T, bias)


def _connect(context: Context, node: Node, output: str, weights: Array, bias: Array | None) -> None:
    value = context.value(node, 0)
    if weights.shape[1] != value.shape[-1]:
        raise node.unsupported(f"{value.shape} times {weights.shape}")
    source = context.ordered(value, natural(len(value.shape)))
    made = context.new(output, (*value.shape[:-1], weights.shape[0]), natural(len(value.shape)))
    constant = context.builder.constant(f"{output}_w", weights.astype(np.float32))
    offset = np.zeros(weights.shape[0], np.float32) if bias is None else bias.astype(np.float32)
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims = len(value.shape) > 2
    inputs = [source, constant, context.builder.constant(f"{output}_b", offset)]
    context.builder.operator("FULLY_CONNECTED", inputs, made.tensor, options)


WRITERS = {"Gemm": gemm, "MatMul": matmul}
