"""Folds an ONNX model of fixed batch to what depends on the input alone, by ONNX Runtime's basic rewrites.

Exporters write shape arithmetic as nodes; with every size known it is constant. The basic level keeps to standard
operators and to no particular processor.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime as ort


def fold(model: bytes) -> bytes:
    """Return ``model``, whose shapes are all fixed, with constant parts computed and redundant nodes gone."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory(prefix="hedgerow-fold-") as folder:
        result = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(result)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return result.read_bytes()
