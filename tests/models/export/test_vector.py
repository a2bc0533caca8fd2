from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hedgerow.models.export.vector import decode_vector, load_vector, n_parameters, to_vector
from hedgerow.shared.errors import ContentError


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))


def test_a_vector_loaded_into_another_module_makes_it_the_same() -> None:
    first, second = net(), net()
    vector = to_vector(first) + np.float32(0.5)
    load_vector(second, vector)

    np.testing.assert_array_equal(to_vector(second), vector)
    assert vector.size == n_parameters(first) == 2 * 9 + 2 + 8 * 3 + 3


def test_values_lie_in_the_order_of_the_modules_parameters() -> None:
    module = net()
    vector = to_vector(module)

    np.testing.assert_array_equal(vector[:18], next(module[0].parameters()).detach().numpy().ravel())
    np.testing.assert_array_equal(vector[-3:], list(module[2].parameters())[1].detach().numpy())


def test_loading_does_not_tie_the_module_to_the_vector() -> None:
    module = net()
    vector = to_vector(module)
    load_vector(module, vector)
    before = to_vector(module)
    vector[:] = 0

    np.testing.assert_array_equal(to_vector(module), before)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_vector_of_another_length_is_refused(change: int) -> None:
    module = net()

    with pytest.raises(ContentError, match="where the recipe builds 47"):
        load_vector(module, np.zeros(n_parameters(module) + change, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused_and_the_module_stays(value: float) -> None:
    module = net()
    before = to_vector(module)
    bad = before.copy()
    bad[-1] = value

    with pytest.raises(ContentError, match="non-finite"):
        load_vector(module, bad)
    np.testing.assert_array_equal(to_vector(module), before)


def test_bytes_are_little_endian_floats() -> None:
    np.testing.assert_array_equal(decode_vector(b"\x00\x00\x80\x3f\x00\x00\x00\xc0"), [1.0, -2.0])


def test_bytes_that_are_no_whole_number_of_values_are_refused() -> None:
    with pytest.raises(ContentError, match="7 bytes"):
        decode_vector(b"\0" * 7)
