"""Padding arithmetic: when ONNX's explicit padding is TFLite's SAME, and what output sizes follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hedgerow.models.export.tflite.builder import Builder
from hedgerow.models.export.tflite.graph import Node


@dataclass(frozen=True)
class Sliding:
    """A window sliding over height and width; ``before`` and ``after`` are the padding at each end."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    def out(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the output's height and width for an input's."""
        padded = [size[k] + self.before[k] + self.after[k] - self._reach(k) for k in (0, 1)]
        return padded[0] // self.stride[0] + 1, padded[1] // self.stride[1] + 1

    def _reach(self, k: int) -> int:
        return (self.kernel[k] - 1) * self.dilation[k] + 1

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return any(self.before) or any(self.after)

    def is_same(self, size: tuple[int, int]) -> bool:
        """Say whether TFLite's SAME pads exactly so for this input size."""
        out = self.out(size)
        for k in (0, 1):
            need = max((out[k] - 1) * self.stride[k] + self._reach(k) - size[k], 0)
            if out[k] != -(-size[k] // self.stride[k]) or self.before[k] != need // 2:
                return False
        return True


def read_sliding(node: Node, kernel: tuple[int, ...]) -> Sliding:
    """Return a node's window over one or two spatial axes; one axis becomes the height. Raises UnsupportedError."""
    if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", "NOTSET", "VALID"):
        raise node.unsupported("automatic padding")
    if node.attributes.get("ceil_mode"):
        raise node.unsupported("ceil_mode")
    rank = len(kernel)
    pads = tuple(node.attributes.get("pads", (0,) * (2 * rank)))
    stride = tuple(node.attributes.get("strides", (1,) * rank))
    dilation = tuple(node.attributes.get("dilations", (1,) * rank))
    if rank not in (1, 2) or min(pads, default=0) < 0:
        raise node.unsupported(f"a window over {rank} axes with padding {pads}")
    before, after = pads[:rank], pads[rank:]
    if rank == 1:
        return Sliding((kernel[0], 1), (stride[0], 1), (dilation[0], 1), (before[0], 0), (after[0], 0))
    return Sliding(_two(kernel), _two(stride), _two(dilation), _two(before), _two(after))


def _two(values: tuple[int, ...]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def pad_zeros(builder: Builder, tensor: int, memory_shape: tuple[int, ...], sliding: Sliding) -> int:
    """Write a PAD with zeros over height and width of an (n, h, w, c) tensor and return the padded one."""
    n, h, w, c = memory_shape
    amounts = [[0, 0], [sliding.before[0], sliding.after[0]], [sliding.before[1], sliding.after[1]], [0, 0]]
    out = builder.tensor(f"pad_{tensor}", (n, h + sum(amounts[1]), w + sum(amounts[2]), c))
    constant = builder.constant(f"pads_{out}", np.array(amounts, np.int32))
    builder.operator("PAD", [tensor, constant], out, schema.PadOptionsT())
    return out
