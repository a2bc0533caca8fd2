"""The bare engine calls that ``Runtime.infer`` is measured against: set, invoke, get, with buffers made once.

Models have float32 ends, so that quantising the input and dequantising the output is part of ``invoke``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Call = Callable[[], object]


def bare_call(runtime: str, path: Path, x: Floats, output_shape: tuple[int, ...]) -> Call:
    """Return a call that runs the engine on ``x`` with nothing around it, one thread."""
    return _onnxruntime(path, x, output_shape) if runtime == "onnxruntime" else _litert(path, x)


def _onnxruntime(path: Path, x: Floats, output_shape: tuple[int, ...]) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_free_dimension_override_by_name("n", 1)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source, result = np.zeros_like(x), np.zeros((1, *output_shape), np.float32)
    binding = session.io_binding()
    binding.bind_input(session.get_inputs()[0].name, "cpu", 0, np.float32, source.shape, source.ctypes.data)
    binding.bind_output(session.get_outputs()[0].name, "cpu", 0, np.float32, result.shape, result.ctypes.data)

    def call() -> object:
        np.copyto(source, x)
        session.run_with_iobinding(binding)
        return result

    return call


def _litert(path: Path, x: Floats) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    engine: Any = Interpreter(model_path=str(path), num_threads=1)
    engine.allocate_tensors()
    source = engine.get_input_details()[0]["index"]
    result = engine.get_output_details()[0]["index"]

    def call() -> object:
        engine.set_tensor(source, x)
        engine.invoke()
        return engine.get_tensor(result)

    return call
