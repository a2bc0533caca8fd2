"""Graphs written by hand, whose answers numpy gives: operator by operator, without torch or its exporter between."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.support.nets import litert_answers, onnx_answers, operators, to_tflite, torch_answers
from torch import nn

from hedgerow.models.export.onnx_export import check_parity, export_onnx
from hedgerow.models.export.onnx_fold import fold
from hedgerow.models.export.tflite import convert
from hedgerow.shared.errors import ContentError, UnsupportedError

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def graph(nodes: list[Any], shape: tuple[int, ...], out: tuple[int, ...], **constants: Any) -> bytes:
    """Return an ONNX model of ``nodes`` from ``x`` to ``y``."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def node(kind: str, *inputs: str, out: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [out], name=f"the-{kind}-{out}", **attributes)


def floats(*shape: int) -> Floats:
    made: Floats = RNG.normal(size=shape).astype(np.float32)
    return made


def softmax(x: Floats) -> Numbers:
    made: Numbers = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(made / made.sum(-1, keepdims=True))


X = floats(1, 3, 4)
W, B = floats(4, 5), floats(5)
CASES: dict[str, tuple[bytes, Floats, Numbers]] = {
    "relu": (graph([node("Relu", "x")], X.shape, X.shape), X, np.maximum(X, 0)),
    "sigmoid": (graph([node("Sigmoid", "x")], X.shape, X.shape), X, 1 / (1 + np.exp(-X))),
    "tanh": (graph([node("Tanh", "x")], X.shape, X.shape), X, np.tanh(X)),
    "softmax": (graph([node("Softmax", "x", axis=-1)], X.shape, X.shape), X, softmax(X)),
    "relu6": (
        graph([node("Clip", "x", "a", "b")], X.shape, X.shape, a=np.float32(0), b=np.float32(6)),
        9 * X,
        np.clip(9 * X, 0, 6),
    ),
    "constant minus x": (graph([node("Sub", "c", "x")], X.shape, X.shape, c=floats(4) * 0 + 2), X, 2 - X),
    "x minus constant": (graph([node("Sub", "x", "c")], X.shape, X.shape, c=np.float32(2).reshape(1)), X, X - 2),
    "constant over x": (graph([node("Div", "c", "x")], X.shape, X.shape, c=np.float32(3).reshape(1)), X, 3 / X),
    "a constant a row": (graph([node("Mul", "x", "c")], X.shape, X.shape, c=W[:3, :1]), X, X * W[:3, :1]),
    "x times itself": (graph([node("Mul", "x", "x")], X.shape, X.shape), X, X * X),
    "product": (graph([node("MatMul", "x", "w")], X.shape, (1, 3, 5), w=W), X, X @ W),
    "product and bias": (
        graph([node("MatMul", "x", "w", out="p"), node("Add", "b", "p")], X.shape, (1, 3, 5), w=W, b=B),
        X,
        X @ W + B,
    ),
    "product read twice": (
        graph(
            [node("MatMul", "x", "w", out="p"), node("Add", "p", "b", out="q"), node("Mul", "p", "q")],
            X.shape, (1, 3, 5), w=W, b=B,
        ),
        X,
        (X @ W) * (X @ W + B),
    ),
    "relu of a value that is read before it": (
        graph([node("MatMul", "x", "w", out="p"), node("Relu", "p", out="q"), node("Sub", "q", "p")], X.shape, (1, 3, 5), w=W),
        X,
        np.maximum(X @ W, 0) - X @ W,
    ),
    "scaled gemm": (
        graph([node("Gemm", "x", "w", "b", alpha=0.5, beta=3.0)], (1, 4), (1, 5), w=W, b=B),
        X[:, 0],
        0.5 * X[:, 0] @ W + 3 * B,
    ),
    "gemm of a scalar bias": (
        graph([node("Gemm", "x", "w", "b", transB=1)], (1, 4), (1, 5), w=W.T.copy(), b=np.array([2], np.float32)),
        X[:, 0],
        X[:, 0] @ W + 2,
    ),
    "transpose": (graph([node("Transpose", "x", perm=[0, 2, 1])], X.shape, (1, 4, 3)), X, X.transpose(0, 2, 1)),
    "reshape with 0 and -1": (
        graph([node("Reshape", "x", "s")], X.shape, (1, 12), s=np.array([0, -1])), X, X.reshape(1, 12),
    ),
    "there and back": (
        graph(
            [node("Transpose", "x", perm=[0, 2, 1], out="t"), node("Relu", "t", out="r"), node("Transpose", "r", perm=[0, 2, 1])],
            X.shape, X.shape,
        ),
        X,
        np.maximum(X, 0),
    ),
    "concat of transposed": (
        graph([node("Transpose", "x", perm=[0, 2, 1], out="t"), node("Concat", "t", "t", axis=2)], X.shape, (1, 4, 6)),
        X,
        np.concatenate([X.transpose(0, 2, 1)] * 2, 2),
    ),
    "mean over rows, kept": (
        graph([node("ReduceMean", "x", axes=[1], keepdims=1)], X.shape, (1, 1, 4)), X, X.mean(1, keepdims=True),
    ),
    "mean over columns, not kept": (
        graph([node("ReduceMean", "x", axes=[-1], keepdims=0)], X.shape, (1, 3)), X, X.mean(-1),
    ),
    "unsqueeze and squeeze": (
        graph(
            [node("Unsqueeze", "x", "a", out="u"), node("Relu", "u", out="r"), node("Squeeze", "r", "a")],
            X.shape, X.shape, a=np.array([2]),
        ),
        X,
        np.maximum(X, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_file_answers_as_the_formula_does(name: str) -> None:
    model, x, expected = CASES[name]
    onnx.checker.check_model(onnx.load_model_from_string(model))
    found = litert_answers(convert(model), x)

    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(onnx_answers(model, x), expected, rtol=1e-5, atol=1e-5)


REFUSED = {
    "an unknown operator": (graph([node("Erf", "x")], X.shape, X.shape), "the-Erf"),
    "softmax over rows": (graph([node("Softmax", "x", axis=1)], X.shape, X.shape), "the-Softmax"),
    "a clip to 1": (
        graph([node("Clip", "x", "a", "b")], X.shape, X.shape, a=np.float32(0), b=np.float32(1)), "the-Clip",
    ),
    "a clip from -1": (graph([node("Clip", "x", "a")], X.shape, X.shape, a=np.float32(-1)), "the-Clip"),
    "a mean over the batch": (graph([node("ReduceMean", "x", axes=[0])], X.shape, X.shape), "the-ReduceMean"),
    "a mean over everything": (graph([node("ReduceMean", "x")], X.shape, (1, 1, 1)), "the-ReduceMean"),
    "a concat along the batch": (graph([node("Concat", "x", "x", axis=0)], X.shape, (2, 3, 4)), "the-Concat"),
    "two constants": (graph([node("Add", "a", "a")], X.shape, (4,), a=floats(4)), "the-Add"),
    "a constant of doubles": (
        graph([node("Add", "x", "a")], X.shape, X.shape, a=np.ones(4)), "the-Add",
    ),
    "a constant of more axes": (graph([node("Add", "x", "a")], (1, 4), (1, 1, 4), a=floats(1, 1, 4)), "the-Add"),
    "a constant larger than the value": (
        graph([node("Add", "x", "a")], (1, 1, 4), (1, 3, 4), a=floats(1, 3, 4)), "the-Add",
    ),
    "a computed matrix": (graph([node("MatMul", "x", "x")], (1, 4, 4), (1, 4, 4)), "the-MatMul"),
    "a stack of matrices": (graph([node("MatMul", "x", "w")], X.shape, (1, 3, 5), w=W[None]), "the-MatMul"),
    "a transposed input": (graph([node("Gemm", "x", "w", transA=1)], (4, 1), (1, 5), w=W), "the-Gemm"),
    "a reshape to a computed shape": (graph([node("Reshape", "x", "x")], X.shape, X.shape), "the-Reshape"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_form_is_refused_by_the_node_s_name(name: str) -> None:
    model, said = REFUSED[name]

    with pytest.raises(UnsupportedError, match=said):
        convert(model)


ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.Identity]


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from(ACTIVATIONS), st.booleans()), min_size=1, max_size=4
    ),
    st.integers(1, 12),
    st.integers(0, 2**31),
)
def test_random_dense_networks_say_the_same_in_torch_onnx_and_tflite(
    layers: list[tuple[int, type[nn.Module], bool]], inputs: int, seed: int
) -> None:
    torch.manual_seed(seed)
    steps: list[nn.Module] = []
    before = inputs
    for width, activation, bias in layers:
        steps += [nn.Linear(before, width, bias=bias), activation()]
        before = width
    module = nn.Sequential(*steps).eval()
    x = np.random.default_rng(seed).normal(size=(3, inputs)).astype(np.float32)
    expected = torch_answers(module, x)
    fixed = fold(export_onnx(module, (inputs,), batch=1))

    for found in (
        onnx_answers(export_onnx(module, (inputs,)), x),
        onnx_answers(fixed, x),
        litert_answers(convert(fixed), x),
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        check_parity(expected, found, "it")


@settings(max_examples=12)
@given(st.integers(1, 4), st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_random_convolutions_over_one_axis_say_the_same_in_torch_and_tflite(
    channels: int, filters: int, kernel: int, stride: int, seed: int
) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv1d(channels, filters, kernel, stride, padding=kernel // 2), nn.ReLU()
    ).eval()
    x = np.random.default_rng(seed).normal(size=(2, channels, 9)).astype(np.float32)

    np.testing.assert_allclose(
        litert_answers(to_tflite(module, (channels, 9)), x), torch_answers(module, x), rtol=1e-4, atol=1e-5
    )


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8), st.floats(-2, 2), st.integers(0, 7))
def test_parity_is_judged_by_the_reference_s_largest_magnitude(
    values: list[float], times: float, at: int
) -> None:
    reference = np.array(values, np.float32)
    limit = 1e-4 * max(1.0, float(np.abs(reference).max()))
    moved = reference.astype(np.float64)
    moved[at % len(values)] += times * limit
    exported = moved.astype(np.float32)
    worst = float(np.abs(reference - exported).max())

    if worst <= limit:
        assert check_parity(reference, exported, "m.onnx") == worst
    else:
        with pytest.raises(ContentError, match=r"m\.onnx: differs from the module by"):
            check_parity(reference, exported, "m.onnx")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_parity_takes_no_output_that_is_no_number_even_where_both_have_it(bad: float) -> None:
    values = np.array([1.0, bad], np.float32)

    with pytest.raises(ContentError, match="non-finite"):
        check_parity(values, values, "m.onnx")
    with pytest.raises(ContentError, match=r"output \(2,\) where the module gives \(2, 1\)"):
        check_parity(values.reshape(2, 1), values, "m.onnx")


def test_a_module_that_torch_cannot_write_is_refused_in_words() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = torch.special.bessel_j0(x)
            return made

    with pytest.raises(UnsupportedError, match="cannot be written as ONNX"):
        export_onnx(Odd(), (3,))


def test_a_graph_that_only_moves_data_names_its_operators() -> None:
    assert operators(convert(CASES["transpose"][0])) == ["TRANSPOSE"]
    assert operators(convert(CASES["product and bias"][0])) == ["FULLY_CONNECTED"]
    assert operators(convert(CASES["there and back"][0])) == ["RELU"]


@pytest.mark.parametrize("name", ["", "same"])
def test_nodes_without_names_of_their_own_are_all_written(name: str) -> None:
    """A bias that joins its product is passed over later by its node's name: another of that name must not be."""
    nodes = [node("MatMul", "x", "w", out="p"), node("Add", "p", "b", out="q"), node("Add", "q", "b", out="r"), node("Tanh", "r")]  # fmt: skip
    for one in nodes:
        one.name = name
    model = graph(nodes, X.shape, (1, 3, 5), w=W, b=B)

    np.testing.assert_allclose(
        litert_answers(convert(model), X), np.tanh(X @ W + 2 * B), rtol=1e-5, atol=1e-5
    )
