"""What the demo publishes is what the agent's mapping reads, row by row and to the microsecond."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.edge_agent.telemetry.mapping import Mapping
from hedgerow.models.pump.faults import DEFAULT_FAULT
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.profile import Channel, DeviceProfile, SourceSpec, read_profile
from hedgerow.simulations.bench.skab_files import Recording
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.demo.sensors import RecordedSensor, SimulatedSensor, payload, row_of, time_of

PUMP = read_profile(configs_folder() / "profiles" / "pump.toml")


def test_a_published_row_comes_back_through_the_profiles_mapping() -> None:
    row = SimulatedSensor(0, 1).rows(1)[0]

    decoded = Mapping(PUMP.source[0], PUMP.channels).decode(payload(PUMP, PUMP.source[0], time_of(7), row), 0)

    assert not decoded.refusals
    (read,) = decoded.rows
    assert row_of(read.time_us) == 7
    assert [value for _, value in sorted(read.values)] == pytest.approx(row.tolist(), abs=1e-6)


def test_times_and_rows_are_one_to_one() -> None:
    assert [row_of(round(time_of(n).timestamp() * 1e6)) for n in (0, 1, 86_400)] == [0, 1, 86_400]


def test_the_same_seed_makes_the_same_machine_and_another_another() -> None:
    one, same, other = (SimulatedSensor(0, seed).rows(50) for seed in (1, 1, 2))

    assert one.tobytes() == same.tobytes()
    assert not np.allclose(one, other)


def test_a_fault_begins_where_it_was_planted() -> None:
    quiet, broken = SimulatedSensor(0, 1), SimulatedSensor(0, 1)
    quiet.rows(100)
    broken.rows(100)

    start = broken.inject(DEFAULT_FAULT, 20)
    before, after = quiet.rows(60), broken.rows(60)

    assert start == 120
    assert before[:20].tobytes() == after[:20].tobytes()
    channel = PUMP.channels.index(DEFAULT_FAULT.planted)
    assert after[40:, channel].mean() > before[40:, channel].mean()


def test_a_recording_is_replayed_to_its_end() -> None:
    sensor = RecordedSensor(
        Recording("r", np.arange(10, dtype=np.float32).reshape(5, 2), np.zeros(5, bool), 0)
    )

    assert [len(sensor.rows(3)), len(sensor.rows(3)), len(sensor.rows(3))] == [3, 2, 0]
    assert sensor.row == 5


def test_a_mapping_that_the_demo_cannot_write_is_refused() -> None:
    profile = DeviceProfile(
        "p", 1, channel=(Channel("a", "A", 0, 1, 0.5, 1),), source=(SourceSpec("t", "value", channel="a"),)
    )

    with pytest.raises(ConfigError, match="objects with a timestamp"):
        payload(profile, profile.source[0], time_of(0), np.zeros(1))
