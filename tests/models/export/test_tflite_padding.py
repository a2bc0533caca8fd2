from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from hedgerow.models.export.tflite.builder import Builder
from hedgerow.models.export.tflite.graph import Node
from hedgerow.models.export.tflite.padding import Sliding, pad_zeros, read_sliding
from hedgerow.shared.errors import UnsupportedError

small = st.tuples(st.integers(1, 4), st.integers(1, 4))
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


def node(**attributes: object) -> Node:
    return Node("n", "Conv", ("x",), ("y",), attributes)


@given(small, small, small, pads, sizes)
def test_output_sizes_are_those_of_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
) -> None:
    for k in (0, 1):
        assume(size[k] + 2 * padding[k] >= (kernel[k] - 1) * dilation[k] + 1)
    sliding = Sliding(kernel, stride, dilation, padding, padding)

    expected = functional.conv2d(
        torch.zeros(1, 1, *size),
        torch.zeros(1, 1, *kernel),
        stride=stride,
        dilation=dilation,
        padding=padding,
    )
    assert sliding.out(size) == tuple(expected.shape[2:])


@given(small, small, pads, pads, sizes)
def test_same_means_exactly_what_tflite_pads(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    before: tuple[int, int],
    after: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """TensorFlow's rule: as many outputs as steps fit into the input, the smaller half of the padding in front."""
    sliding = Sliding(kernel, stride, (1, 1), before, after)
    outs = [-(-size[k] // stride[k]) for k in (0, 1)]
    total = [max((outs[k] - 1) * stride[k] + kernel[k] - size[k], 0) for k in (0, 1)]

    if sliding.is_same(size):
        assert sliding.out(size) == tuple(outs)
        assert before == tuple(t // 2 for t in total)
    exact = before == tuple(t // 2 for t in total) and after == tuple(t - t // 2 for t in total)
    assert sliding.is_same(size) or not exact


def test_one_axis_becomes_the_height() -> None:
    found = read_sliding(node(strides=[2], pads=[1, 2], dilations=[3]), (5,))

    assert found == Sliding((5, 1), (2, 1), (3, 1), (1, 0), (2, 0))


def test_two_axes_take_their_padding_from_both_halves() -> None:
    found = read_sliding(node(pads=[1, 2, 3, 4]), (5, 6))

    assert found == Sliding((5, 6), (1, 1), (1, 1), (1, 2), (3, 4))
    assert found.padded
    assert not read_sliding(node(), (3, 3)).padded


@pytest.mark.parametrize(
    "attributes", [{"auto_pad": b"SAME_LOWER"}, {"ceil_mode": 1}, {"pads": [-1, 0, 0, 0]}]
)
def test_what_cannot_be_said_is_refused(attributes: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError, match="node 'n'"):
        read_sliding(node(**attributes), (3, 3))


def test_padding_grows_height_and_width_alone() -> None:
    builder = Builder()
    source = builder.tensor("x", (1, 4, 5, 2))
    padded = pad_zeros(builder, source, (1, 4, 5, 2), Sliding((3, 3), (1, 1), (1, 1), (1, 2), (3, 4)))

    from tests.support.nets import litert_answers

    x = np.ones((1, 4, 5, 2), np.float32)
    found = litert_answers(builder.finish(source, padded), x)
    assert found.shape == (1, 8, 11, 2)
    np.testing.assert_array_equal(found, np.pad(x, [(0, 0), (1, 3), (2, 4), (0, 0)]))
