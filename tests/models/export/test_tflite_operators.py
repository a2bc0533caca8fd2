"""Each supported operator against ONNX Runtime, and how the file looks where layout and fusing matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.support.nets import (
    ConvAutoencoder,
    SmallCnn,
    litert_answers,
    onnx_answers,
    operators,
    seeded,
    to_tflite,
)
from torch import nn
from torch.nn import functional

from hedgerow.models.export.onnx_export import export_onnx
from hedgerow.models.export.onnx_fold import fold
from hedgerow.models.export.tflite import convert, supported_operators
from hedgerow.shared.errors import ContentError, UnsupportedError


class Fn(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], *inner: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.inner = nn.Sequential(*inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.inner(x))


def same(x: torch.Tensor) -> torch.Tensor:
    return x


CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv, padding as SAME": (nn.Conv2d(3, 5, 3, padding=1), (3, 7, 6)),
    "conv, padding unlike SAME": (nn.Conv2d(3, 5, 3, stride=2, padding=1), (3, 8, 8)),
    "conv, dilated": (nn.Conv2d(2, 4, 3, dilation=2, padding=2), (2, 9, 9)),
    "conv, no bias, even kernel": (nn.Conv2d(2, 4, 2, bias=False), (2, 5, 5)),
    "conv, depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 6, 6)),
    "conv, depthwise with multiplier": (nn.Conv2d(3, 6, 3, padding=1, groups=3), (3, 6, 6)),
    "conv over one axis": (nn.Sequential(nn.Conv1d(3, 4, 5, stride=2, padding=2), nn.ReLU()), (3, 11)),
    "batch norm": (nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU6()), (1, 6, 6)),
    "batch norm of its own": (nn.Sequential(nn.BatchNorm2d(3, eps=0.1), nn.ReLU()), (3, 4, 5)),
    "dense": (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), (6,)),
    "dense over rows": (nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 6, bias=False)), (5, 6)),
    "max pool": (nn.MaxPool2d(2), (3, 6, 7)),
    "max pool, padded as SAME": (nn.MaxPool2d(3, stride=1, padding=1), (2, 5, 5)),
    "max pool over one axis": (nn.MaxPool1d(2), (3, 8)),
    "average pool, padding counted": (nn.AvgPool2d(3, stride=2, padding=1), (2, 8, 8)),
    "average pool, padding not counted": (
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        (2, 5, 5),
    ),
    "global mean": (Fn(lambda x: x.mean((2, 3)), nn.Conv2d(2, 3, 3)), (2, 6, 6)),
    "global mean, axes kept": (Fn(lambda x: x - x.mean((2, 3), keepdim=True) * 0 + 1), (2, 4, 4)),
    "adaptive pool": (nn.AdaptiveAvgPool2d(1), (3, 5, 5)),
    "upsample": (nn.Upsample(scale_factor=2), (3, 4, 5)),
    "upsample over one axis": (nn.Upsample(scale_factor=3), (3, 4)),
    "softmax": (nn.Softmax(1), (9,)),
    "sigmoid after a layout change": (Fn(torch.sigmoid, nn.Conv2d(2, 3, 1)), (2, 3, 4)),
    "residual": (Fn(lambda x: x + torch.relu(x) * 2 - x / 4), (2, 3, 4)),
    "constants spread over channels": (
        Fn(lambda x: x * torch.arange(3.0).reshape(3, 1, 1) + torch.arange(4.0), nn.Conv2d(2, 3, 1)),
        (2, 3, 4),
    ),
    "concat of channels": (Fn(lambda x: torch.cat([x, torch.tanh(x)], 1), nn.Conv2d(2, 3, 3)), (2, 5, 5)),
    "activation after a concat": (Fn(lambda x: torch.cat([x, x * -1], 1).relu()), (2, 3, 4)),
    "concat of rows": (Fn(lambda x: torch.cat([x, x], 2), nn.Conv2d(2, 3, 3)), (2, 5, 5)),
    "flatten after a conv": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(27, 4)), (2, 5, 5)),
    "reshape and transpose": (
        Fn(lambda x: x.reshape(-1, 4, 6).transpose(1, 2), nn.Conv2d(2, 2, 1)),
        (2, 3, 4),
    ),
    "unflatten": (nn.Sequential(nn.Linear(6, 12), nn.Unflatten(1, (3, 4))), (6,)),
    "one value read by two": (
        Fn(lambda x: functional.relu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) + x, nn.Conv2d(2, 3, 1)),
        (2, 3, 4),
    ),
    "an output that is also read": (Fn(lambda x: x.relu() * 0 + x, nn.Linear(3, 3)), (3,)),
    "autoencoder": (ConvAutoencoder(), (20, 8)),
    "classifier": (SmallCnn(), (8, 8, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_tflite_says_what_onnx_says(name: str) -> None:
    torch.manual_seed(1)
    module, shape = CASES[name]
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = np.random.default_rng(2).normal(size=(3, *shape)).astype(np.float32)
    model = fold(export_onnx(module, shape, batch=1))

    found, expected = litert_answers(convert(model), x), onnx_answers(model, x)

    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


def test_the_autoencoder_needs_no_data_moved() -> None:
    kinds = operators(to_tflite(seeded(ConvAutoencoder), (20, 8)))

    assert "TRANSPOSE" not in kinds
    assert kinds.count("RESHAPE") == 2
    assert "RELU" not in kinds, "every ReLU is part of its convolution"


def test_the_classifier_moves_data_only_to_flatten_it() -> None:
    kinds = operators(to_tflite(seeded(SmallCnn), (8, 8, 1)))

    assert kinds == [
        "CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "TRANSPOSE", "RESHAPE", "FULLY_CONNECTED",
    ]  # fmt: skip


def test_a_bias_added_after_a_product_joins_it() -> None:
    module = Fn(lambda x: x @ torch.arange(12.0).reshape(4, 3) + torch.arange(3.0))
    x = np.random.default_rng(0).normal(size=(1, 2, 4)).astype(np.float32)
    model = export_onnx(module, (2, 4), batch=1)  # unfolded: folding makes a Gemm of it

    converted = convert(model)

    assert operators(converted) == ["FULLY_CONNECTED"]
    np.testing.assert_allclose(litert_answers(converted, x), onnx_answers(model, x), atol=1e-5)


def test_input_and_output_keep_their_shapes_and_signature() -> None:
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_content=to_tflite(seeded(SmallCnn), (8, 8, 1)), num_threads=1)

    assert engine.get_signature_list() == {"serving_default": {"inputs": ["x"], "outputs": ["y"]}}
    assert engine.get_input_details()[0]["shape"].tolist() == [1, 8, 8, 1]
    assert engine.get_output_details()[0]["shape"].tolist() == [1, 10]


def graph(
    kind: str, shape: list[int], constants: dict[str, np.ndarray] | None = None, **attributes: Any
) -> bytes:
    held = constants or {}
    node = helper.make_node(kind, ["x", *held], ["y"], name="the-node", **attributes)
    made = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


F = np.float32
REFUSED: dict[str, bytes] = {
    "an unknown operator": graph("Erf", [1, 4]),
    "grouped convolution": graph("Conv", [1, 4, 5, 5], {"w": np.ones((4, 2, 3, 3), F)}, group=2),
    "automatic padding": graph("Conv", [1, 1, 5, 5], {"w": np.ones((1, 1, 3, 3), F)}, auto_pad="SAME_UPPER"),
    "a convolution over three axes": graph("Conv", [1, 1, 5, 5, 5], {"w": np.ones((1, 1, 3, 3, 3), F)}),
    "a transposed operand": graph("Gemm", [4, 1], {"w": np.ones((4, 3), F)}, transA=1),
    "other bounds": graph("Clip", [1, 4], {"low": np.array(-1, F), "high": np.array(1, F)}),
    "ceil_mode": graph("MaxPool", [1, 1, 5, 5], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "padding unlike SAME": graph(
        "MaxPool", [1, 1, 8, 8], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "a mean over the batch": graph("ReduceMean", [1, 4], axes=[0]),
    "softmax of another axis": graph("Softmax", [1, 4, 5], axis=1),
    "linear resizing": graph(
        "Resize", [1, 1, 4, 4], {"r": np.empty(0, F), "s": np.array([1, 1, 2, 2], F)}, mode="linear"
    ),
    "a constant that does not spread": graph("Add", [1, 3, 4], {"c": np.ones((2, 3, 4), F)}),
    "a batch that is squeezed away": graph("Squeeze", [1, 4], {"axes": np.array([0], np.int64)}),
    "concatenation along the batch": graph("Concat", [1, 4, 2], axis=0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_tflite_cannot_say_is_refused_by_the_nodes_name(name: str) -> None:
    with pytest.raises(UnsupportedError, match="TFLite export: node 'the-node'"):
        convert(REFUSED[name])


def test_several_inputs_are_refused() -> None:
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "g",
        [info("a", TensorProto.FLOAT, [1, 2]), info("b", TensorProto.FLOAT, [1, 2])],
        [info("y", TensorProto.FLOAT, [1, 2])],
    )

    with pytest.raises(UnsupportedError, match="2 inputs and 1 outputs"):
        convert(helper.make_model(made).SerializeToString())


def test_another_dtype_and_free_axes_are_refused() -> None:
    ints = helper.make_tensor_value_info("x", TensorProto.INT64, [1, 4])
    free = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "rows"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    for source, words in ((ints, "not float32"), (free, "a free axis")):
        made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [source], [result])
        with pytest.raises(UnsupportedError, match=words):
            convert(helper.make_model(made).SerializeToString())


@pytest.mark.parametrize("data", [b"not a model at all", b"\x08\x07\x12\xff\xff\xff\xff\x0f"])
def test_bytes_that_are_not_onnx_are_content_errors(data: bytes) -> None:
    with pytest.raises((ContentError, UnsupportedError)):
        convert(data)


def test_the_list_of_supported_operators_is_what_the_cases_cover() -> None:
    covered: set[str] = set()
    for module, shape in CASES.values():
        model = onnx.load_model_from_string(fold(export_onnx(module, shape, batch=1)))
        covered |= {node.op_type for node in model.graph.node}

    # what torch's exporter or folding rewrites before it can reach the converter
    assert set(supported_operators()) - covered <= {"Dropout", "Identity", "MatMul"}
