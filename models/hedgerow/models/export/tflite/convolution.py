"""Convolutions over one or two axes: plain and depthwise."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hedgerow.models.export.tflite.graph import Array, Node
from hedgerow.models.export.tflite.padding import Sliding, pad_zeros, read_sliding
from hedgerow.models.export.tflite.spatial import as_image, from_image
from hedgerow.models.export.tflite.values import Context


def conv(context: Context, node: Node) -> None:
    """Write Conv as CONV_2D, or DEPTHWISE_CONV_2D where every input channel is its own group."""
    value = context.value(node, 0)
    weights = context.constant(node, 1)
    bias = context.optional_constant(node, 2)
    sliding = read_sliding(node, weights.shape[2:])
    if weights.ndim == 3:
        weights = weights[:, :, :, None]
    groups = int(node.attributes.get("group", 1))
    depthwise = groups > 1 and groups == value.shape[1]
    if groups != 1 and not depthwise:
        raise node.unsupported(f"{groups} groups over {value.shape[1]} channels")
    source, shape = as_image(context, node, value)
    size = (shape[1], shape[2])
    out = (shape[0], *sliding.out(size), weights.shape[0])
    same = sliding.is_same(size)
    if sliding.padded and not same:
        source = pad_zeros(context.builder, source, shape, sliding)
    made = context.builder.tensor(node.outputs[0], out)
    offset = np.zeros(weights.shape[0], np.float32) if bias is None else bias
    kind, kernel, options = _parts(weights, depthwise, shape[3])
    _set_window(options, sliding, same=same and sliding.padded)
    inputs = [
        source,
        context.builder.constant(f"{node.outputs[0]}_w", kernel),
        context.builder.constant(f"{node.outputs[0]}_b", offset.astype(np.float32)),
    ]
    context.builder.operator(kind, inputs, made, options)
    from_image(context, node.outputs[0], made, out, len(value.shape))


def _parts(weights: Array, depthwise: bool, channels: int) -> tuple[str, Array, Any]:
    if not depthwise:
        return "CONV_2D", weights.transpose(0, 2, 3, 1).astype(np.float32), schema.Conv2DOptionsT()
    options = schema.DepthwiseConv2DOptionsT()
    options.depthMultiplier = weights.shape[0] // channels
    return "DEPTHWISE_CONV_2D", weights.transpose(1, 2, 3, 0).astype(np.float32), options


def _set_window(options: Any, sliding: Sliding, *, same: bool) -> None:
    options.padding = schema.Padding.SAME if same else schema.Padding.VALID
    options.strideH, options.strideW = sliding.stride
    options.dilationHFactor, options.dilationWFactor = sliding.dilation


WRITERS = {"Conv": conv}
