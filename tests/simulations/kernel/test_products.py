"""Products bound to their places: the same sums whichever library makes them, at every size and however operands lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hedgerow.simulations.kernel.products import SMALL, product

SHAPES = [(1, 16, 64, 10), (3, 5, 7, 11), (2, 16, 8, 32), (2, 16, 128, 8), (1, 300, 70, 60)]


def stack(draws: torch.Generator, turned: bool, *shape: int) -> torch.Tensor:
    if not turned:
        return torch.randn(shape, generator=draws)
    return torch.randn((shape[0], shape[2], shape[1]), generator=draws).transpose(1, 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_is_that_of_doubles(
    shape: tuple[int, int, int, int], turned: tuple[bool, bool], biased: bool
) -> None:
    many, rows, depth, columns = shape
    draws = torch.Generator().manual_seed(1)
    x = stack(draws, turned[0], many, rows, depth)
    w = stack(draws, turned[1], many, depth, columns)
    bias = torch.randn((many, 1, columns), generator=draws).expand(-1, rows, -1) if biased else None
    y = torch.full((many, rows, columns), float("nan"))

    call = product(x, w, y, bias)
    x.mul_(2.0)  # what is bound are places, not what was there
    call()

    wanted = x.double() @ w.double() + (0 if bias is None else bias.double())
    assert y.numpy() == pytest.approx(wanted.numpy(), abs=1e-5 * depth)


def test_operands_may_be_parts_of_something_larger() -> None:
    draws = torch.Generator().manual_seed(2)
    whole = torch.randn((4, 9, 6, 5), generator=draws)
    out = torch.zeros((4, 3, 5, 5))
    gy = torch.randn((4, 24, 5), generator=draws)

    for row in range(3):
        part = whole[:, row : row + 4].flatten(1, 2)
        product(part.transpose(1, 2), gy, out[:, row])()

    for row in range(3):
        x = whole[:, row : row + 4].reshape(4, 24, 5).double()
        wanted = torch.einsum("npx,npf->nxf", x, gy.double())
        assert out[:, row].numpy() == pytest.approx(wanted.numpy(), abs=1e-4)


def test_both_libraries_are_taken_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    matmul, bmm = np.matmul, torch.bmm

    def noted(name: str, call: object) -> object:
        def run(*arguments: object, **named: object) -> object:
            taken.append(name)
            return call(*arguments, **named)  # type: ignore[operator]

        return run

    monkeypatch.setattr(np, "matmul", noted("numpy", matmul))
    monkeypatch.setattr(torch, "bmm", noted("torch", bmm))
    side = round(SMALL ** (1 / 3)) + 1
    for x, w in (
        (torch.ones((2, 4, 8)), torch.ones((2, 8, 3))),
        (torch.ones((1, side, side)), torch.ones((1, side, side))),
        (torch.ones((2, 4, 8)), torch.ones((2, 32, 8)).transpose(1, 2)),
        (torch.ones((2, 4, 80)), torch.ones((2, 32, 80)).transpose(1, 2)),
        (torch.ones((2, 4, 16))[:, :, ::2], torch.ones((2, 8, 3))),
        (torch.ones((1, 99, 80)), torch.ones((1, 4, 80)).transpose(1, 2)),
        (torch.ones((1, 9, 99)).transpose(1, 2), torch.ones((1, 9, 4))),
        (torch.ones((1, 9, 4)).transpose(1, 2), torch.ones((1, 9, 99))),
    ):
        y = torch.empty((len(x), x.shape[1], w.shape[2]))
        product(x, w, y)()
        assert float(y[0, 0, 0]) == x.shape[2]

    assert taken == ["numpy", "torch", "torch", "numpy", "torch", "torch", "torch", "numpy"]
