"""Random small networks for property tests: convolutions, pools, branches and dense layers in any sensible order."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import nn

ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid]


class Branch(nn.Module):
    """``x`` beside an inner step of the same shape: added to it, or joined along the channels."""

    def __init__(self, inner: nn.Module, join: bool) -> None:
        super().__init__()
        self.inner, self.join = inner, join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.inner(x)], 1) if self.join else x + self.inner(x)


class Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(*self.order)


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


@st.composite
def convolution(draw: st.DrawFn, shape: tuple[int, int, int]) -> nn.Module:
    c, h, w = shape
    kernel = (draw(st.integers(1, min(4, h))), draw(st.integers(1, min(4, w))))
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    depthwise = draw(st.booleans())
    out = c * draw(st.integers(1, 2)) if depthwise else draw(st.integers(1, 6))
    return nn.Conv2d(c, out, kernel, stride, padding, groups=c if depthwise else 1, bias=draw(st.booleans()))


@st.composite
def spatial_step(draw: st.DrawFn, shape: tuple[int, int, int]) -> nn.Module:
    c, h, w = shape
    kinds = ["conv", "activation", "norm", "add", "join"]
    kinds += ["pool"] if h > 1 and w > 1 else []
    kinds += ["upsample"] if h * w <= 36 else []
    match draw(st.sampled_from(kinds)):
        case "conv":
            return draw(convolution(shape))
        case "activation":
            return draw(st.sampled_from(ACTIVATIONS))()
        case "norm":
            return nn.BatchNorm2d(c)
        case "pool":
            return draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))(2, stride=draw(st.integers(1, 2)))
        case "upsample":
            return nn.Upsample(scale_factor=(draw(st.integers(1, 2)), draw(st.integers(1, 2))))
        case joined:
            inner = nn.Sequential(nn.Conv2d(c, c, 1), draw(st.sampled_from(ACTIVATIONS))())
            return Branch(inner, joined == "join")


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 8)), draw(st.integers(1, 8)))
    channels_last = draw(st.booleans())
    steps: list[nn.Module] = [Permute(0, 3, 1, 2)] if channels_last else []
    given_shape = (*shape[1:], shape[0]) if channels_last else shape
    for _ in range(draw(st.integers(1, 4))):
        step = draw(spatial_step(shape))
        shape = tuple(step.eval()(torch.zeros(1, *shape)).shape[1:])
        steps.append(step)
    match draw(st.sampled_from(["flat", "mean", "permuted", "as it is"])):
        case "flat":
            steps += [nn.Flatten(), nn.Linear(math.prod(shape), 5), nn.ReLU(), nn.Linear(5, 3)]
        case "mean":
            steps += [Mean(), nn.Linear(shape[0], 3), nn.Softmax(1)]
        case "permuted":
            steps.append(Permute(0, 2, 3, 1))
        case _:
            pass
    return nn.Sequential(*steps), given_shape
