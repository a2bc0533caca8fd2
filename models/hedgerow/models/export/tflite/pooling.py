"""Pooling, means over axes, and nearest-neighbour resizing."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hedgerow.models.export.tflite.graph import Node
from hedgerow.models.export.tflite.padding import pad_zeros, read_sliding
from hedgerow.models.export.tflite.spatial import as_image, from_image
from hedgerow.models.export.tflite.values import Context, natural


def pool(context: Context, node: Node) -> None:
    """Write MaxPool or AveragePool. Padding that TFLite cannot express exactly is refused."""
    value = context.value(node, 0)
    sliding = read_sliding(node, tuple(node.attributes["kernel_shape"]))
    average = node.kind == "AveragePool"
    if sliding.dilation != (1, 1) or len(node.outputs) > 1:
        raise node.unsupported("dilation or indices")
    source, shape = as_image(context, node, value)
    size = (shape[1], shape[2])
    out = (shape[0], *sliding.out(size), shape[3])
    same = False
    if sliding.padded and average and node.attributes.get("count_include_pad"):
        source = pad_zeros(context.builder, source, shape, sliding)
    elif sliding.padded:
        same = sliding.is_same(size)
        if not same:
            raise node.unsupported(f"padding {sliding.before}, {sliding.after} is not TFLite's SAME")
    made = context.builder.tensor(node.outputs[0], out)
    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.SAME if same else schema.Padding.VALID
    options.strideH, options.strideW = sliding.stride
    options.filterHeight, options.filterWidth = sliding.kernel
    context.builder.operator("AVERAGE_POOL_2D" if average else "MAX_POOL_2D", [source], made, options)
    from_image(context, node.outputs[0], made, out, len(value.shape))


def mean(context: Context, node: Node) -> None:
    """Write ReduceMean or GlobalAveragePool as MEAN over the axes as they lie in memory."""
    value = context.value(node, 0)
    rank = len(value.shape)
    if node.kind == "GlobalAveragePool":
        axes, keep = tuple(range(2, rank)), True
    else:
        given = node.attributes.get("axes")
        given = context.optional_constant(node, 1) if given is None else given
        axes = natural(rank) if given is None else tuple(int(axis) % rank for axis in np.asarray(given))
        keep = bool(node.attributes.get("keepdims", 1))
    if 0 in axes:
        raise node.unsupported("a mean over the batch")
    places = sorted(value.axes.index(axis) for axis in axes)
    if keep:
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
        order = value.axes
    else:
        kept = [axis for axis in range(rank) if axis not in axes]
        shape = tuple(value.shape[axis] for axis in kept)
        order = tuple(kept.index(axis) for axis in value.axes if axis in kept)
    made = context.new(node.outputs[0], shape, order)
    options = schema.ReducerOptionsT()
    options.keepDims = keep
    over = context.builder.constant(f"{node.outputs[0]}_over", np.array(places, np.int32))
    context.builder.operator("MEAN", [value.tensor, over], made.tensor, options)


def resize(context: Context, node: Node) -> None:
    """Write Resize by nearest neighbour, rounding down from asymmetric coordinates (torch's ``Upsample``)."""
    value = context.value(node, 0)
    modes = [node.attributes.get(key, default) for key, default in _RESIZE.items()]
    if [mode.decode() if isinstance(mode, bytes) else mode for mode in modes] != [
        "nearest",
        "asymmetric",
        "floor",
    ]:
        raise node.unsupported(f"mode {modes}; nearest, asymmetric, floor is supported")
    sizes = context.optional_constant(node, 3)
    if sizes is None or not sizes.size:
        scales = context.constant(node, 2)
        sizes = np.floor(np.array(value.shape) * scales).astype(np.int64)
    target = tuple(int(size) for size in sizes)
    if target[:2] != value.shape[:2]:
        raise node.unsupported("a change of batch or channels")
    source, shape = as_image(context, node, value)
    out = (shape[0], target[2], target[3] if len(target) == 4 else 1, shape[3])
    made = context.builder.tensor(node.outputs[0], out)
    to = context.builder.constant(f"{node.outputs[0]}_size", np.array(out[1:3], np.int32))
    context.builder.operator(
        "RESIZE_NEAREST_NEIGHBOR", [source, to], made, schema.ResizeNearestNeighborOptionsT()
    )
    from_image(context, node.outputs[0], made, out, len(value.shape))


_RESIZE = {
    "mode": b"nearest",
    "coordinate_transformation_mode": b"half_pixel",
    "nearest_mode": b"round_prefer_floor",
}
WRITERS = {
    "AveragePool": pool,
    "GlobalAveragePool": mean,
    "MaxPool": pool,
    "ReduceMean": mean,
    "Resize": resize,
}
