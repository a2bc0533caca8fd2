"""A torch module becomes an ONNX model.

The TorchScript exporter is used on purpose: it takes tens of milliseconds and no further package, where the newer
one takes seconds and onnxscript. It is deprecated upstream, so torch is pinned, and what makes the export
trustworthy is not the exporter but ``check_parity``: every exported graph is run against the module before use.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hedgerow.shared.errors import ContentError, UnsupportedError

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]

OPSET = 17
INPUT = "x"
OUTPUT = "y"


def export_onnx(module: torch.nn.Module, input_shape: tuple[int, ...], *, batch: int | None = None) -> bytes:
    """Return ``module`` in evaluation mode as a float32 ONNX model with input ``x`` and output ``y``.

    ``input_shape`` has no batch axis. The batch axis is free, or fixed to ``batch`` where given (a fixed one folds
    every shape computation away). Raises UnsupportedError if torch cannot express the module in ONNX.
    """
    import torch

    module = module.eval()
    example = torch.zeros((batch or 2, *input_shape), dtype=torch.float32)
    free = None if batch else {INPUT: {0: "n"}, OUTPUT: {0: "n"}}
    with warnings.catch_warnings(), torch.no_grad(), TemporaryDirectory(prefix="hedgerow-onnx-") as folder:
        # the exporter's own deprecation, and remarks on tracing that check_parity decides
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                module,
                (example,),
                str(Path(folder) / "model.onnx"),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes=free,
                do_constant_folding=True,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UnsupportedError(f"the model cannot be written as ONNX: {error}") from error
        return (Path(folder) / "model.onnx").read_bytes()


def check_parity(reference: Floats, exported: Floats, what: str) -> float:
    """Return the largest absolute difference of two outputs for the same inputs.

    Raises ContentError if shapes differ, a value is not finite, or the difference is beyond float32 rounding
    (1e-4 of the reference's largest magnitude, at least 1e-4).
    """
    if reference.shape != exported.shape:
        raise ContentError(f"{what}: output {exported.shape} where the module gives {reference.shape}")
    if not np.isfinite(exported).all():
        raise ContentError(f"{what}: a non-finite output")
    worst = float(np.abs(reference - exported).max(initial=0.0))
    limit = 1e-4 * max(1.0, float(np.abs(reference).max(initial=0.0)))
    if worst > limit:
        raise ContentError(f"{what}: differs from the module by {worst:.3g}, more than {limit:.3g}")
    return worst
