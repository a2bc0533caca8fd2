"""TFLite to int8: weights and activations, float32 at both ends.

The float ends are on purpose: the engine's own QUANTIZE takes a microsecond or two, the same in numpy several times that.
Ranges are the true minimum and maximum over all calibration samples; the quantiser's default is a moving average,
which clips what came early.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr

import numpy as np
import numpy.typing as npt
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.utils import qsv_utils

from hedgerow.models.export.tflite.builder import SIGNATURE
from hedgerow.shared.errors import ContentError

Floats = npt.NDArray[np.float32]


def quantise_tflite(model: bytes, calibration: Floats) -> bytes:
    """Return a float32 TFLite model as int8, with ranges from ``calibration``, ``(n, *input)``.

    Operators that the quantiser does not know stay float32. Raises ContentError if there is nothing to calibrate on.
    """
    if not len(calibration) or not np.isfinite(calibration).all():
        raise ContentError(f"int8 calibration on {len(calibration)} samples: finite ones are needed")
    recipe = _recipe()
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # a progress bar, and warnings on memory
        warnings.filterwarnings("ignore", message=".*preserve_all_tensors.*")
        ranges = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        samples = [{"x": np.ascontiguousarray(sample[None])} for sample in calibration]
        ranges.calibrate({SIGNATURE: samples}, recipe)
        work = quantizer.Quantizer(bytearray(model))
        work.load_quantization_recipe(recipe.get_quantization_recipe())
        found = ranges.get_model_qsvs()
        result = work.quantize(found, enable_progress_bar=False, enable_progress_report=False)
    if result.quantized_model is None:
        raise ContentError("the int8 quantiser gave no model")
    return bytes(result.quantized_model)


def _recipe() -> recipe_manager.RecipeManager:
    manager = recipe_manager.RecipeManager()
    manager.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        manager.add_quantization_config(
            regex=".*", operation_name=end, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    return manager
