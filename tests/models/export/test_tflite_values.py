"""Where values lie: data moves only where an operator needs another order, and nothing unread is written."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tests.support.nets import litert_answers, operators

from hedgerow.models.export.tflite.builder import Builder
from hedgerow.models.export.tflite.graph import Graph, Node
from hedgerow.models.export.tflite.values import Context, Value, natural
from hedgerow.shared.errors import UnsupportedError


def context(**constants: np.ndarray) -> Context:
    return Context(Graph("x", (1, 2, 3, 4), "y", [], constants))


def node(*inputs: str) -> Node:
    return Node("n", "Relu", inputs, ("y",), {})


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_of_axes_holds_the_right_values(order: tuple[int, ...]) -> None:
    made = context()
    source = made.new("x", (1, 2, 3, 4), natural(4))
    moved = made.ordered(source, order)
    if moved == source.tensor:
        assert order == natural(4)
        return
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)

    np.testing.assert_array_equal(
        litert_answers(made.builder.finish(source.tensor, moved), x), x.transpose(order)
    )


def test_moving_only_axes_of_size_one_is_a_reshape() -> None:
    made = context()
    source = made.new("x", (1, 5, 1, 3), natural(4))

    assert operators(made.builder.finish(source.tensor, made.ordered(source, (0, 2, 1, 3)))) == ["RESHAPE"]


def test_an_order_is_made_once_and_no_order_costs_nothing() -> None:
    made = context()
    source = made.new("x", (1, 2, 3, 4), natural(4))

    assert made.ordered(source, natural(4)) == source.tensor
    assert made.ordered(source, (0, 2, 3, 1)) == made.ordered(source, (0, 2, 3, 1))


def test_a_reshape_of_a_reshape_starts_from_the_first_and_back_is_nothing() -> None:
    made = context()
    source = made.new("x", (1, 24), natural(2))
    first = made.reshaped(source.tensor, (1, 24), (1, 4, 6))
    second = made.reshaped(first, (1, 4, 6), (1, 6, 4))

    assert operators(made.builder.finish(source.tensor, second)) == ["RESHAPE"]
    assert made.reshaped(second, (1, 6, 4), (1, 24)) == source.tensor


def test_the_shape_in_memory_follows_the_axes() -> None:
    assert Value(0, (1, 2, 3, 4), (0, 2, 3, 1)).memory_shape == (1, 3, 4, 2)


def test_a_constant_where_a_value_must_be_and_the_reverse_are_refused() -> None:
    made = context(c=np.ones(3, np.float32))
    made.new("x", (1, 3), natural(2))

    with pytest.raises(UnsupportedError, match="must be computed"):
        made.value(node("c"), 0)
    with pytest.raises(UnsupportedError, match="must be computed"):
        made.value(node("x"), 1)
    with pytest.raises(UnsupportedError, match="must be a constant"):
        made.constant(node("x"), 0)
    with pytest.raises(UnsupportedError, match="must be a constant"):
        made.constant(node("x"), 3)
    assert made.optional_constant(node("x", "", "c"), 1) is None
    np.testing.assert_array_equal(made.constant(node("x", "", "c"), 2), 1)


def test_operators_and_constants_that_nothing_reads_are_not_written() -> None:
    builder = Builder()
    source, used, unused = (builder.tensor(name, (1, 1000)) for name in ("x", "y", "z"))
    builder.operator("RELU", [source], used)
    builder.operator("ADD", [source, builder.constant("big", np.ones((1, 1000), np.float32))], unused)
    data = builder.finish(source, used)

    assert operators(data) == ["RELU"]
    assert len(data) < 1500, "the constant alone has 4000 bytes"
    assert len(schema.ModelT.InitFromPackedBuf(data, 0).subgraphs[0].tensors) == 2


@pytest.mark.parametrize(
    ("kind", "options", "fuses"),
    [("ADD", schema.AddOptionsT, True), ("CONCATENATION", schema.ConcatenationOptionsT, False)],
)
def test_an_activation_joins_only_operators_whose_kernels_apply_it(
    kind: str, options: type, fuses: bool
) -> None:
    builder = Builder()
    source, made = builder.tensor("x", (1, 4)), builder.tensor("y", (1, 4))
    builder.operator(kind, [source, source], made, options())

    assert builder.fuse(made, "RELU") is fuses
    assert builder.fuse(made, "RELU6") is False, "one activation at most"
    assert builder.fuse(source, "RELU") is False, "an input has no operator"
