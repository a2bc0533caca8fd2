"""Many pumps at once give what each gives alone."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.models.pump import Machine, MachineSpec, draw_machine
from hedgerow.models.pump.batch import machine_rows
from hedgerow.models.pump.machine import BLOCK


@pytest.mark.parametrize("rows", [1, 40, BLOCK + 7])
def test_rows_are_those_of_the_machine_itself(rows: int) -> None:
    seeds = [0, 3, 999_999]
    specs = [draw_machine(seed) for seed in seeds]

    together = machine_rows(specs, seeds, rows)

    for n, (spec, seed) in enumerate(zip(specs, seeds, strict=True)):
        np.testing.assert_allclose(together[n], Machine(spec, seed).rows(rows), rtol=1e-11)


def test_set_points_change_as_on_the_machine() -> None:
    """Often enough that a wrong threshold would show."""
    spec = MachineSpec(set_points_per_hour=1200.0)

    np.testing.assert_allclose(machine_rows([spec], [5], 600)[0], Machine(spec, 5).rows(600), rtol=1e-11)


def test_a_machine_gives_the_same_rows_in_any_company() -> None:
    seeds = [8, 2, 5]
    all_three = machine_rows([draw_machine(s) for s in seeds], seeds, 50)

    assert np.array_equal(machine_rows([draw_machine(2)], [2], 50)[0], all_three[1])


def test_no_machine_or_no_row_is_an_empty_array() -> None:
    assert machine_rows([], [], 5).shape == (0, 5, 8)
    assert machine_rows([draw_machine(0)], [0], 0).shape == (1, 0, 8)
