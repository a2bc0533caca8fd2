"""A recipe's module read as a list of layers, with each layer's parameters in the order that suits its kernels.

Convolutions work on ``(height, width, channels)``, so what a layer holds in memory differs from what torch names: ``where``
follows each value through reshapes, and the columns of a dense layer after a convolution are reordered instead of its input.
Everything elementwise (optimizers, noise, differences) works in that order; ``layout`` leads back to the module's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hedgerow.shared.errors import UnsupportedError
from hedgerow.simulations.kernel.layout import Layout, Piece

Ints = npt.NDArray[np.int64]
Pair: TypeAlias = tuple[int, int]


class Dense(NamedTuple):
    """``(inputs,)`` to ``(outputs,)``; weights ``(outputs, inputs)``. ``at`` is where its parameters begin."""

    inputs: int
    outputs: int
    bias: bool
    at: int
    first: bool

    @property
    def weights(self) -> int:
        """How many there are."""
        return self.inputs * self.outputs


class Conv(NamedTuple):
    """``(channels, *size)`` to ``(filters, *out)``.

    ``last`` tells whether its input has channels last; only the ``first`` layer with parameters may have it otherwise. That one
    keeps weights ``(channels, kh, kw, filters)``, others ``(filters, kh, kw, channels)``. All write channels last.
    """

    channels: int
    filters: int
    size: Pair
    out: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    bias: bool
    at: int
    first: bool
    last: bool

    @property
    def outputs(self) -> int:
        """One bias each."""
        return self.filters

    @property
    def weights(self) -> int:
        """How many there are."""
        return self.taps * self.filters

    @property
    def taps(self) -> int:
        """How many inputs make one output."""
        return self.channels * self.kernel[0] * self.kernel[1]


class Pool(NamedTuple):
    """Maximum over windows, channels last."""

    channels: int
    size: Pair
    out: Pair
    kernel: Pair
    stride: Pair
    padding: Pair


class Relu(NamedTuple):
    """max(0, ·) over ``size`` values."""

    size: int


Layer: TypeAlias = Dense | Conv | Pool | Relu


class Network(NamedTuple):
    """``layout`` leads from the module's vector, ``(n_parameters,)``, to the kernels'."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    layout: Layout

    @property
    def n_parameters(self) -> int:
        """How many values a model has."""
        return self.layout.size


def read_network(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Return ``module``'s layers for examples of ``input_shape``. Raises UnsupportedError naming the first that is not known."""
    _check_parameters(module)
    reader = _Reader(input_shape)
    for layer in _flat(module):
        reader.read(layer)
    if not reader.pieces:
        raise UnsupportedError("the recipe has no parameters")
    output = reader.where
    if not _is_plain(output):
        raise UnsupportedError("the recipe's output is not in torch's order (it ends with a convolution)")
    return Network(input_shape, tuple(output.shape), _pool_before_relu(reader.layers), Layout(reader.pieces))


def kernel_order(module: nn.Module, input_shape: tuple[int, ...]) -> Ints:
    """Return the order in which kernels hold ``module``'s parameters, its own where no kernel can read it."""
    try:
        return read_network(module, input_shape).layout.order()
    except UnsupportedError:
        return np.arange(sum(parameter.numel() for parameter in module.parameters()), dtype=np.int64)


def _check_parameters(module: nn.Module) -> None:
    if any(True for _ in module.buffers()):
        raise UnsupportedError("the recipe has buffers (batch statistics?)")
    parameters = list(module.parameters())
    held = sum(len(list(layer.parameters())) for layer in _flat(module))
    if held != len(parameters) or not all(p.requires_grad for p in parameters):
        raise UnsupportedError("the recipe shares or freezes parameters")


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for part in module:
            yield from _flat(part)
    elif type(module) is not nn.Identity:
        yield module


def _pool_before_relu(layers: list[Layer]) -> tuple[Layer, ...]:
    """Swap each ReLU with the pool after it: both only ever keep the order of values, and there is less left to do."""
    swapped = list(layers)
    for n in range(len(swapped) - 1):
        first, second = swapped[n], swapped[n + 1]
        if isinstance(first, Relu) and isinstance(second, Pool):
            swapped[n], swapped[n + 1] = second, Relu(second.channels * second.out[0] * second.out[1])
    return tuple(swapped)


def _is_plain(where: torch.Tensor) -> bool:
    return torch.equal(where.reshape(-1), torch.arange(where.numel()))


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class _Reader:
    """``where`` has the shape that torch gives one example, and holds each value's place in memory."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.where = torch.arange(int(np.prod(input_shape))).reshape(input_shape)
        self.layers: list[Layer] = []
        self.pieces: list[Piece] = []
        self._image: tuple[int, int, int] | None = None
        self._at = 0

    def read(self, layer: nn.Module) -> None:
        """Take the next layer."""
        kind = type(layer)
        if kind is nn.Flatten or kind is nn.Unflatten:
            self._reshape(layer)
        elif isinstance(layer, nn.Linear) and kind is nn.Linear:
            self._dense(layer)
        elif isinstance(layer, nn.Conv2d) and kind is nn.Conv2d:
            self._conv(layer)
        elif isinstance(layer, nn.MaxPool2d) and kind is nn.MaxPool2d:
            self._pool(layer)
        elif kind is nn.ReLU and self.layers:
            self.layers.append(Relu(self.where.numel()))
        elif kind is not nn.ReLU and not any(True for _ in layer.parameters()):
            self._rearrange(layer)
        else:
            raise UnsupportedError(f"a layer {layer} here has no kernel")

    def _reshape(self, layer: nn.Module) -> None:
        try:
            self.where = layer(self.where[None])[0]
        except (RuntimeError, IndexError) as error:
            raise UnsupportedError(f"{layer} does not fit an example {tuple(self.where.shape)}") from error
        if self.where.dim() == 0:
            raise UnsupportedError(f"{layer} mixes examples")

    def _rearrange(self, layer: nn.Module) -> None:
        """Take a module of unknown code if all it does is to move an example's values, as seen on random ones."""
        values = torch.rand((2, self.where.numel()))
        try:
            moved = layer(self.where[None])[0]
            found = layer(values[:, self.where])
        except Exception as error:  # a recipe's own code: whatever it raises, there is no kernel for it
            raise UnsupportedError(f"a layer {layer} here has no kernel: {error}") from error
        same = moved.numel() == self.where.numel() and torch.equal(
            moved.reshape(-1).sort().values, self.where.reshape(-1).sort().values
        )
        if not same or not torch.equal(found, values[:, moved]):
            raise UnsupportedError(f"a layer {layer} here has no kernel")
        self.where = moved

    def _dense(self, layer: nn.Linear) -> None:
        if tuple(self.where.shape) != (layer.in_features,):
            raise UnsupportedError(f"{layer} over {tuple(self.where.shape)}")
        self.layers.append(
            Dense(layer.in_features, layer.out_features, layer.bias is not None, self._at, not self.pieces)
        )
        self._keep(self._columns(layer), layer.out_features if layer.bias is not None else 0)
        self.where = torch.arange(layer.out_features)
        self._image = None

    def _conv(self, layer: nn.Conv2d) -> None:
        plain = layer.groups == 1 and _pair(layer.dilation) == (1, 1) and layer.padding_mode == "zeros"
        if not plain or isinstance(layer.padding, str) or self.where.dim() != 3:
            raise UnsupportedError(f"{layer} has no kernel")
        channels, *size = self.where.shape
        kernel, stride, padding = (_pair(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        out = _sides((size[0], size[1]), kernel, stride, padding)
        first, last = not self.pieces, self._channels_last()
        if not (last or (first and _is_plain(self.where))) or min(out) < 1:
            raise UnsupportedError(f"{layer} over {tuple(self.where.shape)} in this place")
        bias = layer.bias is not None
        self.layers.append(
            Conv(
                channels,
                layer.out_channels,
                (size[0], size[1]),
                out,
                kernel,
                stride,
                padding,
                bias,
                self._at,
                first,
                last,
            )
        )
        axes = (1, 2, 3, 0) if first else (0, 2, 3, 1)
        self._keep(Piece(self._at, tuple(layer.weight.shape), axes), layer.out_channels if bias else 0)
        self._place(layer.out_channels, out)

    def _pool(self, layer: nn.MaxPool2d) -> None:
        plain = _pair(layer.dilation) == (1, 1) and not layer.ceil_mode and not layer.return_indices
        if not plain or self.where.dim() != 3 or not self._channels_last() or not self.layers:
            raise UnsupportedError(f"{layer} has no kernel in this place")
        channels, *size = self.where.shape
        kernel, stride, padding = (_pair(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        out = _sides((size[0], size[1]), kernel, stride, padding)
        if min(out) < 1:
            raise UnsupportedError(f"{layer} over {tuple(self.where.shape)} leaves nothing")
        self.layers.append(Pool(channels, (size[0], size[1]), out, kernel, stride, padding))
        self._place(channels, out)

    def _channels_last(self) -> bool:
        return _is_plain(self.where.permute(1, 2, 0))

    def _place(self, channels: int, out: Pair) -> None:
        self._image = (channels, *out)
        self.where = torch.arange(channels * out[0] * out[1]).reshape(*out, channels).permute(2, 0, 1)

    def _columns(self, layer: nn.Linear) -> Piece:
        """Return a dense layer's weights, their columns in the order in which the inputs lie in memory."""
        columns = np.argsort(self.where.numpy())
        outputs, inputs = layer.out_features, layer.in_features
        if self._image is not None:
            shape = (outputs, *self._image)
            moved = np.arange(inputs).reshape(self._image).transpose(1, 2, 0)
            if np.array_equal(columns, moved.reshape(-1)):
                return Piece(self._at, shape, (0, 2, 3, 1))
        plain = np.array_equal(columns, np.arange(inputs))
        return Piece(self._at, (outputs, inputs), (0, 1), None if plain else columns)

    def _keep(self, weights: Piece, biases: int) -> None:
        self.pieces.append(weights)
        self._at += weights.size
        if biases:
            self.pieces.append(Piece(self._at, (biases,), (0,)))
            self._at += biases


def _sides(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    high, wide = (
        (side + 2 * pad - width) // step + 1
        for side, width, step, pad in zip(size, kernel, stride, padding, strict=True)
    )
    return high, wide
