"""Walks an ONNX graph in order and lets one writer per operator add to the TFLite file.

Only listed operators in the forms that TFLite expresses exactly are converted; anything else is refused by name, so
that a converted file never means something else than its source.
"""

from __future__ import annotations

from collections.abc import Callable

from hedgerow.models.export.tflite import convolution, dense, elementwise, pooling, shaping
from hedgerow.models.export.tflite.graph import Node, read_graph
from hedgerow.models.export.tflite.values import Context, natural

Writer = Callable[[Context, Node], None]

_WRITERS: dict[str, Writer] = {
    **convolution.WRITERS,
    **dense.WRITERS,
    **elementwise.WRITERS,
    **pooling.WRITERS,
    **shaping.WRITERS,
}


def supported_operators() -> tuple[str, ...]:
    """Return the ONNX operators that can be converted, sorted."""
    return tuple(sorted(_WRITERS))


def convert(onnx_model: bytes) -> bytes:
    """Return a float32 ONNX model as TFLite with batch 1, the same input and output shapes, signature ``x`` to ``y``.

    Raises UnsupportedError naming the node that cannot be expressed, ContentError if the bytes are not ONNX.
    """
    graph = read_graph(onnx_model)
    context = Context(graph)
    shape = (1, *graph.input_shape[1:])
    source = context.new(graph.input_name, shape, natural(len(shape)))
    for node in graph.nodes:
        if node.outputs[0] in context.absorbed:
            continue
        writer = _WRITERS.get(node.kind)
        if writer is None:
            raise node.unsupported(f"not among {', '.join(supported_operators())}")
        writer(context, node)
    result = context.value(Node("output", "output", (graph.output_name,), (), {}), 0)
    tensor = context.ordered(result, natural(len(result.shape)))
    return context.builder.finish(source.tensor, tensor)
