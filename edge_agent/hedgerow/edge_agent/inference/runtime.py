"""The one interface over inference engines, and the factory that imports only the engine asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hedgerow.shared import bundle
from hedgerow.shared.errors import UnsupportedError

Floats = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class Runtime(Protocol):
    """One loaded artefact. Used by one thread at a time: buffers are made once and shared by all calls.

    ``provider`` is what the engine really uses, read back from it, ``wanted_provider`` what it was asked for.
    """

    name: bundle.Runtime
    precision: bundle.Precision
    provider: str
    wanted_provider: str

    def infer(self, x: Floats) -> Floats:
        """Return the output ``(1, *output)`` for one sample ``(1, *input)``, valid until the next call.

        Input and output are float32 whatever the precision. Raises ContentError for another shape.
        """

    def close(self) -> None:
        """Free the engine; later calls of ``infer`` raise ContentError. Closing twice is harmless."""


def open_runtime(
    kind: bundle.Runtime,
    path: Path,
    precision: bundle.Precision,
    input_shape: Shape,
    output_shape: Shape,
    provider: str | None = None,
) -> Runtime:
    """Return the artefact at ``path`` ready to run; shapes are without the batch axis.

    Raises UnsupportedError if the engine is not usable here, ContentError if the file is not a model of these shapes.
    """
    if kind == "onnxruntime":
        try:
            from hedgerow.edge_agent.inference.onnx_runtime import OnnxRuntime
        except ImportError as error:
            raise UnsupportedError(f"ONNX Runtime is not usable on this device: {error}") from error
        return OnnxRuntime(path, precision, input_shape, output_shape, provider)
    if kind == "litert":
        from hedgerow.edge_agent.inference.litert_runtime import LiteRtRuntime

        return LiteRtRuntime(path, precision, input_shape, output_shape, provider)
    raise UnsupportedError(f"no runtime {kind!r}; there are onnxruntime and litert")
