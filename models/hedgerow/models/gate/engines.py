"""Runs an artefact on the server as a device would: one sample a call, one thread, the engine that it is made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hedgerow.shared.bundle import Runtime

Floats = npt.NDArray[np.float32]
One = Callable[[Floats], Floats]


def open_one(runtime: Runtime, data: bytes) -> One:
    """Return a function from one sample ``(1, *input)`` to its output, a fresh array ``(1, *output)``."""
    return _onnxruntime(data) if runtime == "onnxruntime" else _litert(data)


def _onnxruntime(data: bytes) -> One:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name

    def run(x: Floats) -> Floats:
        result: Floats = session.run(None, {source: x})[0]
        return result

    return run


def _litert(data: bytes) -> One:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def run(x: Floats) -> Floats:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        output: Floats = interpreter.get_tensor(result)
        return output

    return run


def run_all(one: One, x: Floats) -> Floats:
    """Return the outputs for ``x`` ``(n, *input)``, one sample after the other."""
    return np.concatenate([one(x[n : n + 1]) for n in range(len(x))])
