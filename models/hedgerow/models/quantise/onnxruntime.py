"""ONNX to int8: static quantise-dequantise pairs, weights per channel, float32 at both ends.

Static on purpose: ONNX Runtime's dynamic quantisation makes convolutions several times slower than float.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from hedgerow.models.export.onnx_export import INPUT
from hedgerow.shared.errors import ContentError

Floats = npt.NDArray[np.float32]

_BATCH = 32


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the package ships no types
    """Hands calibration data to ONNX Runtime in batches."""

    def __init__(self, data: Floats) -> None:
        self._batches: Iterator[Floats] = iter(
            [data[start : start + _BATCH] for start in range(0, len(data), _BATCH)]
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch by input name, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: np.ascontiguousarray(batch)}


def quantise_onnx(model: bytes, calibration: Floats) -> bytes:
    """Return a float32 ONNX model as int8, with ranges from ``calibration``, ``(n, *input)``.

    Ranges are the true minimum and maximum. Raises ContentError if there is nothing to calibrate on.
    """
    if not len(calibration) or not np.isfinite(calibration).all():
        raise ContentError(f"int8 calibration on {len(calibration)} samples: finite ones are needed")
    # ONNX Runtime advises on the root logger, of things that this function has decided
    logging.getLogger().addFilter(_quiet)
    try:
        with TemporaryDirectory(prefix="hedgerow-int8-") as folder:
            source, prepared, result = (Path(folder) / name for name in ("f.onnx", "p.onnx", "q.onnx"))
            source.write_bytes(model)
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(result),
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            return result.read_bytes()
    finally:
        logging.getLogger().removeFilter(_quiet)


def _quiet(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
