"""Random small networks in int8: both quantisers take them, and what they answer stays near the float model."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.nets import litert_answers, onnx_answers, to_tflite, torch_answers
from tests.support.random_nets import networks
from torch import nn

from hedgerow.models.export.onnx_export import export_onnx
from hedgerow.models.quantise import quantise_onnx, quantise_tflite


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(0, 2**32 - 1))
def test_int8_of_a_random_network_answers_near_the_float_one(
    made: tuple[nn.Module, tuple[int, ...]], seed: int
) -> None:
    module, shape = made
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = np.random.default_rng(seed).normal(size=(48, *shape)).astype(np.float32)
    expected = torch_answers(module, x)

    for found in (
        onnx_answers(quantise_onnx(export_onnx(module, shape), x), x),
        litert_answers(quantise_tflite(to_tflite(module, shape), x), x),
    ):
        assert found.shape == expected.shape
        assert np.isfinite(found).all()
        # a handful of layers, each of one 255th of its range
        span = float(expected.max() - expected.min())
        assert float(np.abs(found - expected).max()) <= 0.25 * span + 0.05
