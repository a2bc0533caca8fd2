"""ONNX Runtime behind ``Runtime``: bound buffers, one thread, the provider in use checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from hedgerow.edge_agent.inference.runtime import Floats, Shape
from hedgerow.shared import bundle
from hedgerow.shared.errors import ContentError

CPU = "CPUExecutionProvider"
_REFUSALS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)


class OnnxRuntime:
    """One ONNX model. See ``Runtime``."""

    name: bundle.Runtime = "onnxruntime"

    def __init__(
        self,
        path: Path,
        precision: bundle.Precision,
        input_shape: Shape,
        output_shape: Shape,
        provider: str | None = None,
    ) -> None:
        self.precision = precision
        self.wanted_provider = provider or CPU
        self._session: Any = _open(path, self.wanted_provider)
        # an unknown or unusable provider is no error to ONNX Runtime: it falls back in silence
        self.provider: str = self._session.get_providers()[0]
        self._shape = (1, *input_shape)
        self._in = np.zeros(self._shape, np.float32)
        self._out = np.zeros((1, *output_shape), np.float32)
        self._binding: Any = self._bind(path)
        self._run: Any = self._session.run_with_iobinding

    def _bind(self, path: Path) -> Any:
        source, result = _ends(self._session, path)
        _check(path, "input", source, self._in.shape)
        _check(path, "output", result, self._out.shape)
        binding = self._session.io_binding()
        cpu = ("cpu", 0, np.float32)
        binding.bind_input(source.name, *cpu, self._in.shape, self._in.ctypes.data)
        binding.bind_output(result.name, *cpu, self._out.shape, self._out.ctypes.data)
        return binding

    def infer(self, x: Floats) -> Floats:
        """Return the output for one sample; see ``Runtime``."""
        if x.shape != self._shape:
            raise ContentError(f"input of shape {x.shape}; this model takes {self._shape}")
        np.copyto(self._in, x)
        try:
            self._run(self._binding)
        except _REFUSALS as error:
            raise ContentError(f"ONNX Runtime cannot run the model: {error}") from error
        return self._out

    def close(self) -> None:
        """Free the session; see ``Runtime``."""
        self._binding = self._session = None
        self._run = _closed


def _closed(_: Any) -> None:
    raise ContentError("this runtime is closed")


def _open(path: Path, provider: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # every call is one sample, so that shape arithmetic is done once, at load
    options.add_free_dimension_override_by_name("n", 1)
    usable = [name for name in dict.fromkeys((provider, CPU)) if name in ort.get_available_providers()]
    if not path.is_file():
        raise ContentError(f"{path}: no such model file")
    try:
        return ort.InferenceSession(str(path), options, providers=usable)
    except _REFUSALS as error:
        raise ContentError(f"{path.name}: ONNX Runtime refuses it: {error}") from error


def _ends(session: Any, path: Path) -> tuple[Any, Any]:
    sources, results = session.get_inputs(), session.get_outputs()
    if len(sources) != 1 or len(results) != 1:
        raise ContentError(
            f"{path.name}: {len(sources)} inputs and {len(results)} outputs; one of each is expected"
        )
    return sources[0], results[0]


def _check(path: Path, what: str, end: Any, wanted: Shape) -> None:
    fits = len(end.shape) == len(wanted) and all(
        not isinstance(size, int) or size == want for size, want in zip(end.shape, wanted, strict=True)
    )
    if end.type != "tensor(float)" or not fits:
        raise ContentError(f"{path.name}: {what} is {end.type} {end.shape}; expected float32 {wanted}")
