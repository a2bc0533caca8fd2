"""Random small networks: TFLite must say what ONNX Runtime says of the same graph."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.nets import litert_answers, onnx_answers
from tests.support.random_nets import networks
from torch import nn

from hedgerow.models.export.onnx_export import export_onnx
from hedgerow.models.export.onnx_fold import fold
from hedgerow.models.export.tflite import convert


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(0, 2**32 - 1))
def test_tflite_agrees_with_onnx_on_random_networks(
    made: tuple[nn.Module, tuple[int, ...]], seed: int
) -> None:
    module, shape = made
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    model = fold(export_onnx(module, shape, batch=1))

    found, expected = litert_answers(convert(model), x), onnx_answers(model, x)

    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1.0, float(np.abs(expected).max())))
