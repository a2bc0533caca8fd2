"""Models side by side in memory: what goes in comes out, for one device, for many, and for the first of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hedgerow.simulations.kernel.bank import Bank
from hedgerow.simulations.kernel.buffers import Buffers
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
