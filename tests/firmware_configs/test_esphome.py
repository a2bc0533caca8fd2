"""The ESPHome node publishes exactly the topics that its profile maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hedgerow.edge_agent.telemetry.mapping import Mapping
from hedgerow.shared.profile import read_profile

FIRMWARE = Path(__file__).parents[2] / "firmware_configs"


def load() -> dict[str, Any]:
    """Return the node's YAML; ESPHome's own tags (``!secret``) become their text."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined,misc]
        """A safe loader that knows ``!secret``."""

    Loader.add_constructor("!secret", lambda loader, node: f"secret:{loader.construct_scalar(node)}")
    text = (FIRMWARE / "esphome" / "heating-node.yaml").read_text()
    loaded: dict[str, Any] = yaml.load(text, Loader)
    return loaded


def published_topics(node: dict[str, Any]) -> set[str]:
    """Return ESPHome's default state topics: prefix, component, the name in small letters with underscores."""
    named = []
    for sensor in node["sensor"]:
        named += [
            part["name"] for part in [sensor, *sensor.values()] if isinstance(part, dict) and "name" in part
        ]
    prefix = node["mqtt"]["topic_prefix"]
    return {f"{prefix}/sensor/{name.lower().replace(' ', '_')}/state" for name in named}


def test_topics_equal_the_profiles_sources() -> None:
    profile = read_profile(FIRMWARE / "profiles" / "raspberry-pi-5.toml")

    assert published_topics(load()) == {source.topic for source in profile.source}


def test_the_node_measures_as_often_as_the_profile_expects() -> None:
    profile = read_profile(FIRMWARE / "profiles" / "raspberry-pi-5.toml")

    assert {sensor["update_interval"] for sensor in load()["sensor"]} == {f"{1 / profile.window.rate_hz:g}s"}


def test_the_node_keeps_measuring_without_a_broker_and_holds_no_secret() -> None:
    node = load()

    assert node["mqtt"]["reboot_timeout"] == "0s"
    secrets = [node["wifi"]["password"], node["mqtt"]["password"], node["ota"][0]["password"]]
    assert all(str(secret).startswith("secret:") for secret in secrets)


def test_what_esphome_sends_maps() -> None:
    profile = read_profile(FIRMWARE / "profiles" / "raspberry-pi-5.toml")
    mapping = Mapping(profile.source[0], profile.channels)

    assert mapping.decode(b"45.2", 7).rows[0].values == ((0, 45.2),)
    assert mapping.decode(b"nan", 7).refusals[0].reason == "not-a-number"
