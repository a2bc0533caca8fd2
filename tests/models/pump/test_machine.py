"""The simulated pump: reproducible, varied between machines, and obeying its physics."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.configs import CONFIGS

from hedgerow.models.pump import CHANNELS, DEFAULT_FAULT, FAULTS, Machine, MachineSpec, draw_machine
from hedgerow.shared.profile import read_profile

PROFILE = read_profile(CONFIGS / "profiles" / "pump.toml")


def column(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[:, CHANNELS.index(name)]


def test_the_same_seed_gives_the_same_rows_however_they_are_asked_for() -> None:
    at_once = Machine(draw_machine(3), 3).rows(2500)
    machine = Machine(draw_machine(3), 3)
    bit_by_bit = np.concatenate([machine.rows(1000), [machine.step()], machine.rows(1499)])

    assert np.array_equal(at_once, bit_by_bit)
    assert not np.array_equal(at_once, Machine(draw_machine(3), 4).rows(2500))


def test_every_reading_of_many_machines_lies_within_the_profile_s_ranges() -> None:
    rows = np.concatenate([Machine(draw_machine(seed), seed).rows(1500) for seed in range(15)])

    for name, channel in zip(CHANNELS, PROFILE.channel, strict=True):
        readings = column(rows, name)
        assert channel.minimum < readings.min() and readings.max() < channel.maximum
        assert abs(readings.mean() - channel.nominal) < channel.spread
        assert 0.2 * channel.spread < readings.std() < 2 * channel.spread


def test_machines_differ_more_than_their_noise() -> None:
    means = np.array([Machine(draw_machine(seed), seed).rows(800).mean(axis=0) for seed in range(8)])

    assert (means.std(axis=0) / means.mean(axis=0)).min() > 0.002


def test_flow_pressure_and_current_move_together_with_the_load() -> None:
    rows = Machine(MachineSpec(load_wave=0.1), 1).rows(3000)

    for name in ("pressure", "current"):
        assert np.corrcoef(column(rows, "flow"), column(rows, name))[0, 1] > 0.8


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_a_fault_moves_its_planted_channel_most_and_ends_when_it_stops(kind: str) -> None:
    fault = FAULTS[kind].at(300, 700)
    healthy = Machine(draw_machine(2), 2).rows(1500)
    faulty = Machine(draw_machine(2), 2, [fault]).rows(1500)
    spread = np.array([channel.spread for channel in PROFILE.channel])

    moved = np.abs((faulty - healthy)[320:700].mean(axis=0)) / spread

    assert np.array_equal(healthy[:300], faulty[:300])
    assert CHANNELS[int(np.argmax(moved * (np.array(CHANNELS) != "temperature")))] == fault.planted
    planted = CHANNELS.index(fault.planted)
    assert healthy[700:, planted] == pytest.approx(faulty[700:, planted])


def test_faults_can_be_injected_into_a_running_machine() -> None:
    machine = Machine(draw_machine(5), 5)
    before = machine.rows(200)
    machine.inject(DEFAULT_FAULT.at(machine.row + 10))
    after = machine.rows(200)

    assert (
        column(after, DEFAULT_FAULT.planted)[50:].mean() > 1.5 * column(before, DEFAULT_FAULT.planted).mean()
    )


def test_a_fault_grows_over_its_onset() -> None:
    fault = FAULTS["valve"].at(100)

    assert [fault.level(row) for row in (99, 100, 104, 109, 500)] == [0, 0.1, 0.5, 1, 1]
