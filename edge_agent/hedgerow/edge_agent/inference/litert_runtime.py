"""LiteRT behind ``Runtime``: ai-edge-litert, or the older tflite-runtime where only that exists."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.edge_agent.inference.probe_model import PROBE
from hedgerow.edge_agent.inference.runtime import Floats, Shape
from hedgerow.shared import bundle
from hedgerow.shared.errors import ContentError, UnsupportedError

CPU = "CPU"
_REFUSALS = (ValueError, RuntimeError)


class LiteRtRuntime:
    """One TFLite model. See ``Runtime``."""

    name: bundle.Runtime = "litert"

    def __init__(
        self,
        path: Path,
        precision: bundle.Precision,
        input_shape: Shape,
        output_shape: Shape,
        provider: str | None = None,
    ) -> None:
        self.precision = precision
        self.provider = CPU  # XNNPACK is part of the build; delegates for other hardware are not loaded
        self.wanted_provider = provider or CPU
        self._shape = (1, *input_shape)
        if not path.is_file():
            raise ContentError(f"{path}: no such model file")
        try:
            self._interpreter: Any = interpreter_class()(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        except _REFUSALS as error:
            raise ContentError(f"{path.name}: LiteRT refuses it: {error}") from error
        self._source = _end(path, "input", self._interpreter.get_input_details(), self._shape)
        self._result = _end(path, "output", self._interpreter.get_output_details(), (1, *output_shape))
        self._in, self._out, self._invoke = self._bind()

    def _bind(self) -> tuple[Floats, Floats, Any]:
        """Return views of the engine's own input and output memory, and the call that leaves them where they are.

        The public ``invoke`` refuses to run while such views exist, as they would dangle if memory moved. It moves
        only when tensors are allocated anew, which never happens here: shapes are fixed. Verified by one run.
        """
        engine = self._interpreter
        engine.set_tensor(self._source, np.zeros(self._shape, np.float32))
        engine.invoke()
        source, result = engine.tensor(self._source)(), engine.tensor(self._result)()
        before = (source.ctypes.data, result.ctypes.data)
        invoke = engine._interpreter.Invoke
        invoke()
        after = (engine.tensor(self._source)().ctypes.data, engine.tensor(self._result)().ctypes.data)
        if before != after:
            raise UnsupportedError("this LiteRT moves its tensors between runs; fixed shapes must not move")
        return source, result, invoke

    def infer(self, x: Floats) -> Floats:
        """Return the output for one sample; see ``Runtime``."""
        if x.shape != self._shape:
            raise ContentError(f"input of shape {x.shape}; this model takes {self._shape}")
        np.copyto(self._in, x)
        try:
            self._invoke()
        except _REFUSALS as error:
            raise ContentError(f"LiteRT cannot run the model: {error}") from error
        return self._out

    def close(self) -> None:
        """Free the interpreter; see ``Runtime``."""
        self._invoke = _closed
        self._in = np.zeros(self._shape, np.float32)
        self._out = np.zeros(0, np.float32)
        self._interpreter = None


def _closed() -> None:
    raise ContentError("this runtime is closed")


def _end(path: Path, what: str, details: list[dict[str, Any]], wanted: Shape) -> int:
    if len(details) != 1:
        raise ContentError(f"{path.name}: {len(details)} {what}s; one is expected")
    shape, dtype = tuple(int(size) for size in details[0]["shape"]), details[0]["dtype"]
    if shape != wanted or dtype is not np.float32:
        raise ContentError(f"{path.name}: {what} is {np.dtype(dtype)} {shape}; expected float32 {wanted}")
    return int(details[0]["index"])


@cache
def interpreter_class() -> Any:
    """Return the ``Interpreter`` that works here. Raises UnsupportedError saying why none does.

    Each candidate builds an interpreter of a small built-in model: an engine made for another numpy imports well and
    fails only then.
    """
    reasons = []
    for module in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        try:
            found = __import__(module, fromlist=["Interpreter"]).Interpreter
            probe = found(model_content=PROBE, num_threads=1)
            probe.allocate_tensors()
        except (ImportError, AttributeError, SystemError, RuntimeError, ValueError) as error:
            reasons.append(f"{module}: {type(error).__name__}: {error}")
        else:
            return found
    raise UnsupportedError(
        f"LiteRT is not usable on this device; try: pip install 'hedgerow[tflite]' ({'; '.join(reasons)})"
    )
