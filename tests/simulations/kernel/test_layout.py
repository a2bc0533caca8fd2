"""Two orders of the same parameters: what goes in comes out, and each value is where the axes say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hedgerow.simulations.kernel.layout import Layout, Piece
from hedgerow.simulations.kernel.network import read_network


def vector(size: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    found, at = [], 0
    for _ in range(draw(st.integers(1, 5))):
        shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
        axes, columns = tuple(range(len(shape))), None
        if draw(st.booleans()):
            axes = tuple(draw(st.permutations(axes)))
        elif draw(st.booleans()):
            columns = np.array(draw(st.permutations(range(shape[-1]))), np.int64)
        found.append(Piece(at, shape, axes, columns))
        at += found[-1].size
    return found


def written_out(parts: list[Piece]) -> list[int]:
    """Each place of the kernels' vector in the module's, one value at a time."""
    order = []
    for piece in parts:
        for place in np.ndindex(*[piece.shape[axis] for axis in piece.axes]):
            theirs = [0] * len(place)
            for axis, index in zip(piece.axes, place, strict=True):
                theirs[axis] = index
            if piece.columns is not None:
                theirs[-1] = int(piece.columns[theirs[-1]])
            order.append(piece.at + int(np.ravel_multi_index(theirs, piece.shape)))
    return order


@given(pieces(), st.sampled_from([1, 3, 1 << 16]))
def test_values_go_back_in_their_own_memory_as_into_any_other(parts: list[Piece], block: int) -> None:
    layout = Layout(parts)
    base, inward = vector(layout.size, 1), layout.inward(vector(layout.size))
    for before in (None, base):
        expected, place = np.zeros_like(base), inward.clone()
        layout.outward(inward, expected, before)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hedgerow.simulations.kernel.layout._BLOCK", block)
            layout.outward(place, place.numpy(), before)

        assert np.array_equal(place.numpy(), expected)


@given(pieces())
def test_every_value_goes_where_its_axes_say_and_comes_back(parts: list[Piece]) -> None:
    layout = Layout(parts)
    model, base = vector(layout.size), vector(layout.size, 1)
    order = written_out(parts)

    inward = layout.inward(model)
    back, less = np.zeros_like(model), np.zeros_like(model)
    layout.outward(inward, back)
    layout.outward(inward, less, base)

    assert layout.order().tolist() == order
    assert not layout.plain or order == list(range(layout.size))
    assert np.array_equal(inward.numpy(), model[order])
    assert np.array_equal(back, model)
    assert np.array_equal(less, model - base)


def test_rows_go_out_to_their_places_and_to_no_others() -> None:
    layout = Layout([Piece(0, (2, 3), (1, 0)), Piece(6, (2,), (0,))])
    model = vector(8)
    out = np.zeros((4, 8), np.float32)

    inward = layout.inward(model)
    layout.outward_rows(torch.stack([inward, inward + 1]), out, [3, 1])

    assert np.array_equal(out[3], model)
    assert np.array_equal(out[1], model + 1)
    assert not out[[0, 2]].any()


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_a_vector_taken_in_is_a_copy(axes: tuple[int, ...]) -> None:
    model = np.ones(6, np.float32)

    Layout([Piece(0, (2, 3), axes)]).inward(model).zero_()

    assert model.tolist() == [1.0] * 6


def test_a_vector_of_another_length_is_refused() -> None:
    layout = Layout([Piece(0, (3,), (0,))])
    with pytest.raises(ValueError, match="values where the recipe has 3"):
        layout.inward(np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="values where the recipe has 3"):
        layout.load(np.zeros(2, np.float32), np.zeros(3, np.float32))


def test_no_index_of_single_values_is_kept_for_networks_as_people_build_them() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4))

    layout = read_network(module, (2, 6, 6)).layout

    assert not layout.plain
    assert all(piece.columns is None for piece in layout.pieces)


class Turned(nn.Module):
    """Takes an example's values in reverse."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(-1)


def test_inputs_in_any_other_order_are_told_column_by_column() -> None:
    layout = read_network(nn.Sequential(Turned(), nn.Linear(4, 2)), (4,)).layout

    assert layout.order().tolist() == [3, 2, 1, 0, 7, 6, 5, 4, 8, 9]
