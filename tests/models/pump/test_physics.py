"""The pump against formulas worked out by hand: affinity laws, the operating point, first-order heat, powers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.models.pump import CHANNELS, FAULTS, Fault, Machine, MachineSpec, draw_machine
from hedgerow.models.pump.batch import machine_rows
from hedgerow.models.pump.machine import BLOCK, DRAWS, MOTOR_S, NOISE, ROOM_C, WATER_S

Rows = npt.NDArray[np.float64]
STEADY = MachineSpec(load_wave=0.0, set_points_per_hour=0.0, wear_per_day=0.0)
"""A machine whose load is its mean but for the walk."""


class Still(Machine):
    """A machine whose random draws are all zero: what is left is the physics."""

    def _next_draws(self) -> list[float]:
        return [0.0] * DRAWS


def column(rows: Rows, name: str) -> Rows:
    return rows[:, CHANNELS.index(name)]


def still(spec: MachineSpec, *faults: Fault, count: int = 3) -> Rows:
    return Still(replace(spec, set_points_per_hour=0.0), 1, faults).rows(count)


SPECS = st.builds(
    MachineSpec,
    head_bar=st.floats(1, 6),
    pump_curve=st.floats(2e-4, 3e-3),
    loop_curve=st.floats(5e-4, 6e-3),
    best_flow_lpm=st.floats(15, 60),
    efficiency=st.floats(0.3, 0.8),
    friction_w=st.floats(5, 200),
    imbalance=st.floats(0.2, 3),
    voltage_v=st.floats(100, 400),
    wear_per_day=st.just(0.0),
    load_mean=st.floats(0.5, 1.5),
    load_wave=st.just(0.0),
)


@settings(max_examples=50)
@given(SPECS)
def test_the_pump_s_head_meets_the_loop_s_at_the_operating_point(spec: MachineSpec) -> None:
    """H = s²·H0 − a·Q² (pump) = k·Q² (loop): both are solved here for what the sensors read."""
    rows = still(spec)
    flow, pressure = column(rows, "flow")[0], column(rows, "pressure")[0]

    assert spec.load_mean**2 * spec.head_bar - spec.pump_curve * flow**2 == pytest.approx(pressure)
    assert spec.loop_curve * flow**2 == pytest.approx(pressure)


@settings(max_examples=50)
@given(SPECS, st.floats(0.5, 1.5))
def test_affinity_laws_flow_with_speed_head_with_its_square_power_with_its_cube(
    spec: MachineSpec, ratio: float
) -> None:
    slow, fast = still(spec)[0], still(replace(spec, load_mean=ratio * spec.load_mean))[0]

    assert fast[CHANNELS.index("flow")] == pytest.approx(ratio * slow[CHANNELS.index("flow")])
    assert fast[CHANNELS.index("pressure")] == pytest.approx(ratio**2 * slow[CHANNELS.index("pressure")])
    water = CHANNELS.index("water-temperature")
    assert fast[water] - ROOM_C == pytest.approx(ratio**3 * (slow[water] - ROOM_C), rel=1e-9, abs=1e-9)


@settings(max_examples=50)
@given(SPECS)
def test_electrical_power_is_hydraulic_power_over_efficiency_and_friction(spec: MachineSpec) -> None:
    """1 bar · 1 l/min = 1e5 Pa · 1e-3/60 m³/s = 5/3 W."""
    row = still(spec)[0]
    flow, pressure, amps, volts = (row[CHANNELS.index(n)] for n in ("flow", "pressure", "current", "voltage"))
    hydraulic_w = pressure * flow * 5 / 3
    distance = flow / spec.best_flow_lpm - 1
    efficiency = max(0.2, spec.efficiency * (1 - 0.8 * distance**2))

    assert volts == pytest.approx(spec.voltage_v)
    wanted = hydraulic_w / efficiency + spec.friction_w * spec.load_mean
    assert amps * volts * 0.82 == pytest.approx(wanted)


def test_at_its_best_point_the_pump_is_as_efficient_as_its_data_sheet_says_and_shakes_least() -> None:
    at_best = STEADY.load_mean * math.sqrt(STEADY.head_bar / (STEADY.pump_curve + STEADY.loop_curve))
    shakes = {}
    for offset in (-8.0, -3.0, 0.0, 3.0, 8.0):
        row = still(replace(STEADY, best_flow_lpm=at_best + offset))[0]
        shakes[offset] = row[CHANNELS.index("vibration-1")]

    assert min(shakes, key=shakes.__getitem__) == 0.0
    assert shakes[0.0] == pytest.approx(0.1 * STEADY.imbalance)


def test_the_motor_warms_as_a_first_order_lag_does() -> None:
    """Thrown out of its balance, the difference shrinks by (1 − 1/τ) each second: e-fold in about τ."""
    for name, lag in (("temperature", MOTOR_S), ("water-temperature", WATER_S)):
        machine = Still(replace(STEADY, set_points_per_hour=0.0), 1)
        balance = column(machine.rows(1), name)[0]
        machine._motor_c += 30.0
        machine._water_c += 30.0
        away = column(machine.rows(500), name) - balance

        expected = 30.0 * (1 - 1 / lag) ** np.arange(1, 501)
        np.testing.assert_allclose(away, expected, atol=1e-9)


def test_a_machine_starts_in_balance() -> None:
    rows = still(STEADY, count=200)

    np.testing.assert_allclose(rows, np.tile(rows[0], (200, 1)), rtol=1e-12)


def test_the_load_s_wave_has_its_period_and_height() -> None:
    spec = replace(STEADY, load_wave=0.05, load_period_s=100.0)
    flow = column(still(spec, count=400), "flow")
    unloaded = math.sqrt(spec.head_bar / (spec.pump_curve + spec.loop_curve))
    speed = flow / unloaded

    np.testing.assert_allclose(speed[:300], speed[100:], atol=1e-9)
    assert np.ptp(speed) == pytest.approx(0.1, rel=1e-2)
    spectrum = np.abs(np.fft.rfft(speed - speed.mean()))
    assert int(spectrum.argmax()) == 4, "four waves in 400 s"


def test_wear_grows_by_its_share_a_day_on_the_bearing_s_end_alone() -> None:
    spec = replace(STEADY, wear_per_day=0.5)
    machine = Still(replace(spec, set_points_per_hour=0.0), 1)
    new = machine.rows(1)[0]
    machine.row = 86_400
    worn = machine.rows(1)[0]

    ends = [CHANNELS.index(n) for n in ("vibration-1", "vibration-2")]
    assert worn[ends[0]] == pytest.approx(new[ends[0]])
    assert worn[ends[1]] == pytest.approx(1.5 * new[ends[1]])
    assert worn[CHANNELS.index("current")] > new[CHANNELS.index("current")]


def test_each_sensor_has_the_noise_that_it_is_said_to_have() -> None:
    """With the process standing still, what is left of a reading is its sensor: 4000 readings pin σ to 4 %."""

    class OnlySensors(Machine):
        def _next_draws(self) -> list[float]:
            draws = super()._next_draws()
            return draws[: len(CHANNELS)] + [0.0] * (DRAWS - len(CHANNELS))

    rows = OnlySensors(replace(STEADY, set_points_per_hour=0.0), 7).rows(4000)

    np.testing.assert_allclose(rows.std(axis=0), NOISE, rtol=0.06)
    assert (np.abs(rows.mean(axis=0) - still(STEADY)[0]) < 4 * np.array(NOISE) / math.sqrt(4000)).all()


def test_a_sensor_s_gain_scales_its_reading_and_nothing_else() -> None:
    plain = still(STEADY)[0]
    for n in range(len(CHANNELS)):
        gains = tuple(1.02 if k == n else 1.0 for k in range(len(CHANNELS)))
        np.testing.assert_allclose(still(replace(STEADY, gains=gains))[0] / plain, gains)


def test_the_supply_and_the_walk_are_pulled_back() -> None:
    """An AR(1) with x' = (1 − 1/40)·x + 0.25·n has a standard deviation of 0.25 / sqrt(1 − (1 − 1/40)²)."""
    volts = np.concatenate([column(Machine(STEADY, seed).rows(3000), "voltage")[500:] for seed in range(6)])
    wanted = math.hypot(0.25 / math.sqrt(1 - (1 - 1 / 40) ** 2), NOISE[CHANNELS.index("voltage")])

    assert volts.std() == pytest.approx(wanted, rel=0.08)
    assert volts.mean() == pytest.approx(230.0, abs=0.25)


def test_set_points_change_about_as_often_as_they_should() -> None:
    """At 3600 an hour there is a new one each second; at 0 none ever."""
    never = Machine(STEADY, 3)
    never.rows(500)
    assert never._target == 0.0

    always = Machine(replace(STEADY, set_points_per_hour=3600.0), 3)
    targets = []
    for _ in range(200):
        always.step()
        targets.append(always._target)
    assert len(set(targets)) > 150
    assert max(map(abs, targets)) <= 0.06 + 1e-12


def test_a_closing_valve_acts_as_a_steeper_loop_and_a_weak_supply_as_a_lower_voltage() -> None:
    valve = still(STEADY, Fault("valve", "flow", onset_rows=1))[0]
    steeper = still(replace(STEADY, loop_curve=2.2 * STEADY.loop_curve))[0]
    skip = CHANNELS.index("temperature"), CHANNELS.index("water-temperature")
    keep = [n for n in range(len(CHANNELS)) if n not in skip]
    np.testing.assert_allclose(valve[keep], steeper[keep])

    weak = still(STEADY, Fault("supply", "voltage", onset_rows=1))[0]
    plain = still(STEADY)[0]
    assert weak[CHANNELS.index("voltage")] == pytest.approx(0.95 * plain[CHANNELS.index("voltage")])
    assert weak[CHANNELS.index("current")] == pytest.approx(plain[CHANNELS.index("current")] / 0.95)


def test_a_bearing_shakes_its_own_end_by_nine_tenths_and_drags_by_half_its_friction() -> None:
    plain, bad = still(STEADY)[0], still(STEADY, Fault("bearing", "vibration-2", onset_rows=1))[0]
    at = CHANNELS.index

    assert bad[at("vibration-2")] == pytest.approx(1.9 * plain[at("vibration-2")])
    assert bad[at("vibration-1")] == pytest.approx(plain[at("vibration-1")])
    more_w = (bad[at("current")] - plain[at("current")]) * 230 * 0.82
    assert more_w == pytest.approx(0.5 * STEADY.friction_w)


def test_cavitation_costs_fifteen_percent_of_the_head() -> None:
    plain, bad = still(STEADY)[0], still(STEADY, Fault("cavitation", "vibration-1", onset_rows=1))[0]
    at = CHANNELS.index

    assert bad[at("pressure")] == pytest.approx(0.85 * plain[at("pressure")])
    assert bad[at("flow")] == pytest.approx(math.sqrt(0.85) * plain[at("flow")])


def test_a_stuck_sensor_repeats_one_value_far_from_the_process_until_it_is_mended() -> None:
    fault = FAULTS["stuck-sensor"].at(10, 40)
    rows = Machine(draw_machine(1), 1, [fault]).rows(60)
    pressure = column(rows, "pressure")

    assert len(set(pressure[10:40].tolist())) == 1
    assert pressure[10] < 0.7 * pressure[:10].mean()
    assert len(set(pressure[40:].tolist())) == 20
    others = [n for n, name in enumerate(CHANNELS) if name != "pressure"]
    assert np.array_equal(rows[:, others], Machine(draw_machine(1), 1).rows(60)[:, others])


@given(
    st.integers(0, 300),
    st.none() | st.integers(0, 300),
    st.integers(0, 50),
    st.floats(0, 3),
    st.integers(0, 400),
)
def test_a_fault_s_level_is_a_ramp_between_its_rows(
    start: int, stop: int | None, onset: int, severity: float, row: int
) -> None:
    level = Fault("valve", "flow", start, stop, onset, severity).level(row)

    active = row >= start and (stop is None or row < stop)
    assert level == pytest.approx(severity * min(1.0, (row - start + 1) / max(1, onset)) if active else 0.0)
    assert 0 <= level <= severity


def test_placing_a_fault_keeps_what_it_is() -> None:
    for fault in FAULTS.values():
        placed = fault.at(5, 9)
        assert (placed.start, placed.stop) == (5, 9)
        assert replace(placed, start=fault.start, stop=fault.stop) == fault
        assert fault.planted in CHANNELS


@settings(max_examples=15)
@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=4), st.integers(0, 70))
def test_many_machines_at_once_are_each_machine_alone(seeds: list[int], rows: int) -> None:
    specs = [draw_machine(seed) for seed in seeds]
    together = machine_rows(specs, seeds, rows)

    for n, (spec, seed) in enumerate(zip(specs, seeds, strict=True)):
        np.testing.assert_allclose(together[n], Machine(spec, seed).rows(rows), rtol=1e-11)


def test_more_rows_begin_with_the_fewer_across_blocks_of_draws() -> None:
    spec = draw_machine(4)
    few, many = machine_rows([spec], [4], BLOCK - 1), machine_rows([spec], [4], BLOCK + 1)

    assert np.array_equal(many[:, : BLOCK - 1], few)


@given(st.integers(0, 2**63 - 1))
def test_a_drawn_machine_is_the_same_each_time_and_near_the_nominal_one(seed: int) -> None:
    spec, nominal = draw_machine(seed), MachineSpec()

    assert spec == draw_machine(seed)
    for name, share in (("head_bar", 0.04), ("loop_curve", 0.06), ("friction_w", 0.15), ("voltage_v", 0.008)):
        assert abs(getattr(spec, name) / getattr(nominal, name) - 1) <= share + 1e-12
    assert len(spec.gains) == len(CHANNELS)
    assert all(abs(gain - 1) <= 0.01 for gain in spec.gains)
