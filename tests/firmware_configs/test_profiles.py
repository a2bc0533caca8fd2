"""Every shipped profile is read, checked and maps what its sensors send."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hedgerow.edge_agent.telemetry.mapping import Mapping
from hedgerow.edge_agent.telemetry.stream import RowStream
from hedgerow.shared.profile import read_profile

FOLDER = Path(__file__).parents[2] / "firmware_configs" / "profiles"
PROFILES = sorted(FOLDER.glob("*.toml"))


def test_the_boards_named_in_the_docs_have_profiles() -> None:
    assert {"jetson-orin-nano", "raspberry-pi-5", "x86-gateway", "pump", "skab"} <= {
        path.stem for path in PROFILES
    }


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_loads_and_gives_a_stream(path: Path) -> None:
    profile = read_profile(path)

    assert profile.version >= 1
    if profile.channel:
        assert profile.window_spec.shape == (profile.window.length, len(profile.channels))
        RowStream(profile)


def test_the_conveyors_objects_map() -> None:
    profile = read_profile(FOLDER / "jetson-orin-nano.toml")
    message = {
        "t": 1_767_225_600_100,
        "current": 8.1,
        "drive": {"speed": 1.2, "mode": "auto"},
        "bearing": {"vibration": 2.4, "temperature": 44.0},
    }

    decoded = Mapping(profile.source[0], profile.channels).decode(json.dumps([message]).encode(), 0)

    assert decoded.refusals == ()
    assert decoded.rows[0].time_us == 1_767_225_600_100_000
    assert dict(decoded.rows[0].values) == {0: 8.1, 1: 1.2, 2: 2.4, 3: 44.0}


def test_the_compressors_arrays_map() -> None:
    profile = read_profile(FOLDER / "x86-gateway.toml")

    decoded = Mapping(profile.source[0], profile.channels).decode(
        b"[[1767225600, 1.0, 7.4, 36.2, 74.8, 2948]]", 0
    )

    assert decoded.refusals == ()
    assert dict(decoded.rows[0].values) == {0: 1.0, 1: 7.4, 2: 36.2, 3: 74.8, 4: 2948.0}
