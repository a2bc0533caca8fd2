"""Public telemetry comes from machines that no fleet has, and agrees with the data sheet in the profile."""

from __future__ import annotations

import numpy as np
from tests.support.configs import CONFIGS

from hedgerow.models.pump import CHANNELS, public
from hedgerow.shared.profile import read_profile


def test_the_data_sheet_in_code_is_the_profile_s() -> None:
    profile = read_profile(CONFIGS / "profiles" / "pump.toml")

    assert profile.channels == CHANNELS
    assert tuple(channel.nominal for channel in profile.channel) == public.NOMINAL
    assert tuple(channel.spread for channel in profile.channel) == public.SPREAD


def test_a_public_machine_has_as_many_faulty_windows_as_normal_ones() -> None:
    machine = public.public_machine(0, 16, 20)

    assert machine.normal.shape == machine.faulty.shape == (20, 16, 8)


def test_windows_are_cut_oldest_first() -> None:
    rows = np.arange(20.0).reshape(10, 2)

    windows = public.cut(rows, 4, 3)

    assert windows[:, 0, 0].tolist() == [0, 6, 12]


def test_a_device_of_other_channels_gets_mixtures_of_the_same_size() -> None:
    machine = public.public_machine(1, 16, 40)

    mixed = public.mixed(machine.normal, ("a", "b", "c"))

    assert mixed.shape == (40, 16, 3)
    assert 0.2 < mixed.std() < 2
