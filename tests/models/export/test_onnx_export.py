from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from hedgerow.models.export.onnx_export import check_parity, export_onnx
from hedgerow.models.export.onnx_fold import fold
from hedgerow.shared.errors import ContentError, UnsupportedError


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    return np.asarray(ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0])


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.ReLU(), nn.Linear(5, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x)
        return result


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_one_export_serves_any_batch_and_agrees_with_the_module(batch: int) -> None:
    torch.manual_seed(0)
    module = Normed()
    x = np.random.default_rng(batch).normal(size=(batch, 6)).astype(np.float32)

    answer = run(export_onnx(module, (6,)), x)

    np.testing.assert_allclose(answer, module.eval()(torch.from_numpy(x)).detach().numpy(), atol=1e-6)


def test_a_fixed_batch_is_written_into_the_file() -> None:
    model = onnx.load_model_from_string(export_onnx(nn.Linear(4, 2), (4,), batch=1))

    assert [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [1, 4]


def test_export_is_in_evaluation_mode_and_says_nothing() -> None:
    module = Normed().train()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = export_onnx(module, (6,))

    x = np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(run(model, x), run(model, x))


def test_folding_leaves_no_shape_arithmetic() -> None:
    module = nn.Sequential(nn.Linear(6, 12), nn.Unflatten(1, (3, 4)))
    raw = export_onnx(module, (6,), batch=1)
    folded = fold(raw)

    kinds = {node.op_type for node in onnx.load_model_from_string(folded).graph.node}
    assert "Shape" in {node.op_type for node in onnx.load_model_from_string(raw).graph.node}
    assert kinds <= {"Gemm", "Reshape"}
    x = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)
    np.testing.assert_allclose(run(folded, x), run(raw, x), atol=1e-6)


def test_a_module_that_onnx_cannot_say_is_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = torch.special.i0e(x)
            return result

    with pytest.raises(UnsupportedError, match="cannot be written as ONNX"):
        export_onnx(Odd(), (4,))


def test_parity_accepts_rounding_and_refuses_more() -> None:
    reference = np.array([[1.0, -200.0]], np.float32)

    assert check_parity(reference, reference + np.float32(0.01), "x") == pytest.approx(0.01, rel=0.01)
    with pytest.raises(ContentError, match=r"x: differs from the module by 0.03"):
        check_parity(reference, reference + np.float32(0.03), "x")


@pytest.mark.parametrize(
    ("exported", "words"),
    [
        (np.array([[np.nan, 1.0]], np.float32), "non-finite"),
        (np.zeros((1, 3), np.float32), r"output \(1, 3\)"),
    ],
)
def test_parity_refuses_what_cannot_be_compared(exported: np.ndarray, words: str) -> None:
    with pytest.raises(ContentError, match=words):
        check_parity(np.zeros((1, 2), np.float32), exported, "x")
