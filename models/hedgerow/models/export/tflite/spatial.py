"""Values as TFLite images: (n, h, w, c) for ONNX's (n, c, h, w), and width 1 for ONNX's (n, c, l)."""

from __future__ import annotations

from hedgerow.models.export.tflite.graph import Node
from hedgerow.models.export.tflite.values import NHWC, NLC, Context, Value

Image = tuple[int, int, int, int]


def as_image(context: Context, node: Node, value: Value) -> tuple[int, Image]:
    """Return ``value`` as an (n, h, w, c) tensor and its shape. Raises UnsupportedError for other ranks."""
    if len(value.shape) == 4:
        n, c, h, w = value.shape
        return context.ordered(value, NHWC), (n, h, w, c)
    if len(value.shape) == 3:
        n, c, length = value.shape
        source = context.ordered(value, NLC)
        return context.reshaped(source, (n, length, c), (n, length, 1, c)), (n, length, 1, c)
    raise node.unsupported(f"a value of {len(value.shape)} axes; 3 or 4 are supported")


def from_image(context: Context, name: str, tensor: int, shape: Image, rank: int) -> None:
    """Record an (n, h, w, c) tensor as the ONNX value ``name`` of ``rank`` axes."""
    n, h, w, c = shape
    if rank == 4:
        context.put(name, Value(tensor, (n, c, h, w), NHWC))
    else:
        context.put_reshaped(name, Value(context.reshaped(tensor, shape, (n, h, c)), (n, c, h), NLC), tensor)
