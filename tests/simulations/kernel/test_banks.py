"""Models side by side in memory: what goes in comes out, for one device, for many, and for the first of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hedgerow.simulations.kernel.bank import Bank
from hedgerow.simulations.kernel.buffers import Buffers
from hedgerow.simulations.kernel.compiled import Layout
from hedgerow.simulations.kernel.network import Conv, Dense, read_network

CPU = torch.device("cpu")
NETWORK = read_network(
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4, bias=False), nn.Linear(4, 3)),
    (1, 5, 5),
)
SIZE = NETWORK.n_parameters


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, SIZE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("devices", [1, 2, 5])
def test_models_and_gradients_come_out_as_they_went_in(devices: int) -> None:
    bank = Bank(NETWORK, devices, CPU)
    models, gradients = vectors(devices, 1), vectors(devices, 2)

    bank.load(models)
    bank.set_gradients(gradients)

    assert torch.equal(bank.minus(torch.zeros_like(models)), models)
    assert torch.equal(bank.gradients(devices), gradients)
    assert torch.equal(torch.cat(list(bank.split(models)), dim=1), models)


def test_loading_some_devices_leaves_the_others() -> None:
    bank = Bank(NETWORK, 4, CPU)
    bank.load(vectors(4, 1))

    bank.load(vectors(2, 2))

    held = bank.minus(torch.zeros((4, SIZE)))
    assert torch.equal(held[:2], vectors(2, 2))
    assert torch.equal(held[2:], vectors(4, 1)[2:])


@pytest.mark.parametrize("devices", [1, 3])
def test_each_tensors_block_is_contiguous_and_shared(devices: int) -> None:
    bank = Bank(NETWORK, devices, CPU)
    bank.load(vectors(devices))
    for layer in NETWORK.layers:
        if isinstance(layer, Dense | Conv):
            block = bank.block(layer.at, layer.weights)
            assert block.values.is_contiguous()
            assert block.gradients.is_contiguous()
            assert torch.equal(block.values, vectors(devices)[:, layer.at : layer.at + layer.weights])
            block.gradients.fill_(float(layer.at + 1))
    found = bank.gradients(devices)
    assert found[:, :18].eq(1.0).all()
    assert found[:, 20:92].eq(21.0).all()
    assert found[:, 18:20].eq(0.0).all()


def test_one_device_is_one_block() -> None:
    assert [tuple(block.values.shape) for block in Bank(NETWORK, 1, CPU).blocks] == [(1, SIZE)]
    assert [block.at for block in Bank(NETWORK, 3, CPU).blocks] == [0, 18, 20, 92, 104]


@given(st.permutations(range(9)))
def test_a_layout_leads_in_and_back_out(order: list[int]) -> None:
    layout = Layout(np.array(order, np.int64))
    vector = np.arange(9, dtype=np.float32) * 1.5
    out = np.zeros(9, np.float32)
    rows = np.zeros((4, 9), np.float32)

    inward = layout.inward(vector)
    layout.outward(inward, out)
    layout.outward_rows(torch.stack([inward, inward + 1]), rows, [3, 1])

    assert inward.tolist() == [1.5 * place for place in order]
    assert torch.equal(layout.inward_tensor(torch.from_numpy(vector)[None])[0], inward)
    assert np.array_equal(out, vector)
    assert np.array_equal(rows[3], vector)
    assert np.array_equal(rows[1], vector + 1)
    assert not rows[[0, 2]].any()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_a_vector_taken_in_is_a_copy(order: list[int]) -> None:
    vector = np.ones(3, np.float32)
    layout = Layout(np.array(order, np.int64))

    layout.inward(vector).zero_()

    assert vector.tolist() == [1.0, 1.0, 1.0]


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="values where the recipe has 3"):
        Layout(np.arange(3)).inward(np.zeros(4, np.float32))


def test_buffers_keep_their_memory_and_begin_with_zeros() -> None:
    buffers = Buffers(4, CPU)

    first = buffers.take("a", 3, 2, 2)
    assert not first.any()
    first.fill_(7.0)
    again = buffers.take("a", 4, 2, 2)

    assert again[:3].eq(7.0).all()
    assert not again[3].any()
    assert again.data_ptr() == first.data_ptr()
    assert buffers.block("b", 2, 5).shape == (10,)
    assert buffers.block("b", 4, 5).data_ptr() == buffers.block("b", 1, 5).data_ptr()
