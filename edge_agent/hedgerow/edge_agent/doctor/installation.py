"""Checks of the installation: Python, the extras, and each inference engine by running a model of one operator."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from hedgerow.edge_agent.doctor.finding import Finding
from hedgerow.edge_agent.inference.probe_model import PROBE
from hedgerow.edge_agent.inference.runtime import open_runtime
from hedgerow.shared.bundle import Runtime
from hedgerow.shared.errors import HedgerowError

OLDEST_PYTHON: Final = (3, 11)
# What each extra brings, and what a machine without it cannot do.
EXTRAS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "train": (("torch", "flwr", "opacus", "dp_accounting"), "this device serves models but does not train"),
    "tflite": (("ai_edge_litert",), "models run on ONNX Runtime only"),
    "server": (("fastapi", "sqlalchemy", "onnx", "flwr"), "this machine cannot be the server"),
    "demo": (("amqtt", "psutil"), "hedgerow demo needs a mosquitto on PATH"),
}
# ONNX, opset 13: y = Relu(x), float32 of shape (1, 1).
ONNX_PROBE: Final = (
    b'\x08\x08\x12\x00:;\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01pZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x01'
    b"\n\x02\x08\x01b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\r"
)
_PROBES: Final[Mapping[Runtime, bytes]] = {"onnxruntime": ONNX_PROBE, "litert": PROBE}


def is_installed(module: str) -> bool:
    """Tell whether a module can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Find whether Python is new enough."""
    text = ".".join(map(str, version))
    if tuple(version) >= OLDEST_PYTHON:
        return Finding("python", "ok", text)
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", "wrong", f"{text} is older than {oldest}", f"install Python {oldest} or newer")


def check_extra(name: str, installed: Callable[[str], bool] = is_installed) -> Finding:
    """Find whether an extra is installed and, if not, what that means."""
    modules, without = EXTRAS[name]
    missing = [module for module in modules if not installed(module)]
    if not missing:
        return Finding(f"extra {name}", "ok", "installed")
    if len(missing) == len(modules):
        return Finding(f"extra {name}", "skipped", f"not installed: {without}")
    what = f"only in part: {', '.join(missing)} missing, so {without}"
    return Finding(f"extra {name}", "warning", what, f"pip install 'hedgerow[{name}]'")


def check_engine(kind: Runtime, installed: Callable[[str], bool] = is_installed) -> Finding:
    """Find whether an engine really runs a model: one that was built for another numpy or CPU imports and then fails."""
    name = f"engine {kind}"
    if kind == "litert" and not (installed("ai_edge_litert") or installed("tflite_runtime")):
        return Finding(name, "skipped", "not installed")
    try:
        with tempfile.TemporaryDirectory(prefix="hedgerow-doctor-") as folder:
            path = Path(folder) / "probe"
            path.write_bytes(_PROBES[kind])
            runtime = open_runtime(kind, path, "float32", (1,), (1,))
            answer = float(runtime.infer(np.full((1, 1), 2.0, np.float32))[0, 0])
            provider = runtime.provider
            runtime.close()
    except (HedgerowError, OSError) as error:
        return Finding(name, "wrong", str(error), "reinstall the engine for this machine's Python and numpy")
    if answer != 2.0:
        return Finding(
            name, "wrong", f"it computes relu(2) = {answer}", "another build of the engine is needed"
        )
    return Finding(name, "ok", f"runs on {provider}")
