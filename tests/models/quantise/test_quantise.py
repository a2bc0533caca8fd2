from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
import torch
from tests.support.nets import (
    ConvAutoencoder,
    SmallCnn,
    interpreter,
    litert_answers,
    onnx_answers,
    operators,
    seeded,
    to_tflite,
    torch_answers,
)
from torch import nn

from hedgerow.models.export.onnx_export import export_onnx
from hedgerow.models.quantise import quantise_onnx, quantise_tflite
from hedgerow.shared.errors import ContentError

NETS = {"autoencoder": (ConvAutoencoder, (60, 8)), "classifier": (SmallCnn, (8, 8, 1))}


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, np.ndarray]:
    kind, shape = NETS[request.param]
    x = np.random.default_rng(5).normal(size=(160, *shape)).astype(np.float32)
    return seeded(kind), x


def float_and_int8(module: nn.Module, x: np.ndarray, engine: str) -> tuple[bytes, bytes]:
    if engine == "onnxruntime":
        model = export_onnx(module, x.shape[1:])
        return model, quantise_onnx(model, x[:64])
    model = to_tflite(module, x.shape[1:])
    return model, quantise_tflite(model, x[:64])


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_int8_stays_close_to_float_on_samples_it_was_not_calibrated_on(
    case: tuple[nn.Module, np.ndarray], engine: str
) -> None:
    module, x = case
    _, small = float_and_int8(module, x, engine)
    expected = torch_answers(module, x[64:])

    found = (onnx_answers if engine == "onnxruntime" else litert_answers)(small, x[64:])

    error = float(((found - expected) ** 2).sum() / (expected**2).sum())
    assert error < 0.01
    assert error > 0, "an int8 model that is exact has not been quantised"


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_int8_is_smaller_and_keeps_float_ends(engine: str) -> None:
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    large, small = float_and_int8(module, x, engine)

    assert len(small) < 0.35 * len(large)
    if engine == "litert":
        made = interpreter(small)
        assert made.get_input_details()[0]["dtype"] is np.float32
        assert made.get_output_details()[0]["dtype"] is np.float32
    else:
        kind = onnx.load_model_from_string(small).graph
        ends = [kind.input[0].type.tensor_type.elem_type, kind.output[0].type.tensor_type.elem_type]
        assert ends == [onnx.TensorProto.FLOAT] * 2


def test_the_whole_tflite_graph_is_int8_between_its_ends() -> None:
    x = np.random.default_rng(0).normal(size=(16, 20, 8)).astype(np.float32)
    kinds = operators(quantise_tflite(to_tflite(seeded(ConvAutoencoder), (20, 8)), x))

    assert (kinds[0], kinds[-1]) == ("QUANTIZE", "DEQUANTIZE")
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(kinds[1:-1])


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_ranges_reach_to_the_largest_calibration_value_however_early_it_came(engine: str) -> None:
    """A moving average of the ranges would have forgotten the first sample and would clip at about a tenth of it."""
    module = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.eye(4))
    calibration = np.random.default_rng(0).uniform(-1, 1, size=(120, 4)).astype(np.float32)
    calibration[0] = [10, -10, 10, -10]
    if engine == "onnxruntime":
        small = quantise_onnx(export_onnx(module, (4,)), calibration)
        found = onnx_answers(small, calibration[:1])
    else:
        small = quantise_tflite(to_tflite(module, (4,)), calibration)
        found = litert_answers(small, calibration[:1])

    np.testing.assert_allclose(found, calibration[:1], atol=0.2)


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
@pytest.mark.parametrize("bad", ["none", "nan"])
def test_calibration_needs_finite_samples(engine: str, bad: str) -> None:
    x = np.zeros((0, 4), np.float32) if bad == "none" else np.full((3, 4), np.nan, np.float32)
    module = nn.Linear(4, 4)

    with pytest.raises(ContentError, match="finite ones are needed"):
        if engine == "onnxruntime":
            quantise_onnx(export_onnx(module, (4,)), x)
        else:
            quantise_tflite(to_tflite(module, (4,)), x)


def test_quantising_says_nothing_and_leaves_the_root_logger_as_it_was(
    capfd: pytest.CaptureFixture[str],
) -> None:
    filters = list(logging.getLogger().filters)
    module, x = seeded(SmallCnn), np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    float_and_int8(module, x, "onnxruntime")
    float_and_int8(module, x, "litert")

    assert logging.getLogger().filters == filters
    said = capfd.readouterr()
    assert said.out == ""
    assert "Calibration" not in said.err
