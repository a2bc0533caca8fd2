"""Who may be drawn: registered, not revoked, and matching every filter; never whether it is online."""

from __future__ import annotations

import pytest
from tests.support.server_parts import Parts

from hedgerow.server.app.population import Population
from hedgerow.shared.job import PopulationSpec

HASH = "a" * 64


@pytest.fixture
def population(parts: Parts) -> Population:
    parts.join("pump-1", "hall-a")
    parts.join("pump-2", "hall-b")
    parts.join("fan-1", "hall-a", "hall-b")
    for device in ("pump-1", "pump-2"):
        parts.report(device, "pump")
    parts.report("fan-1", "fan")
    return Population(parts.fleet)


@pytest.mark.parametrize(
    ("spec", "drawn"),
    [
        (PopulationSpec(), ["fan-1", "pump-1", "pump-2"]),
        (PopulationSpec(groups=("hall-a",)), ["fan-1", "pump-1"]),
        (PopulationSpec(groups=("hall-a", "hall-b")), ["fan-1", "pump-1", "pump-2"]),
        (PopulationSpec(groups=("hall-c",)), []),
        (PopulationSpec(devices=("pump-2", "nobody")), ["pump-2"]),
        (PopulationSpec(profile="pump"), ["pump-1", "pump-2"]),
        (PopulationSpec(profile="pump", groups=("hall-a",)), ["pump-1"]),
        (PopulationSpec(profile="pump", devices=("fan-1",)), []),
    ],
)
def test_every_filter_must_match(population: Population, spec: PopulationSpec, drawn: list[str]) -> None:
    assert list(population.population(spec)) == drawn


def test_a_revoked_device_is_not_drawn(population: Population, parts: Parts) -> None:
    parts.fleet.devices.revoke("pump-1", "stolen")

    assert list(population.population(PopulationSpec())) == ["fan-1", "pump-2"]


def test_a_device_that_never_reported_is_drawn_unless_its_profile_is_asked_for(
    population: Population, parts: Parts
) -> None:
    parts.join("new-1")

    assert "new-1" in population.population(PopulationSpec())
    assert "new-1" not in population.population(PopulationSpec(profile="pump"))


def test_recipes_are_told_by_hash_none_where_missing_and_not_at_all_where_unknown(
    population: Population, parts: Parts
) -> None:
    parts.join("new-1")
    parts.has_recipe("pump-1", "digits-cnn", HASH)

    found = population.recipe_hashes("digits-cnn", ["pump-1", "pump-2", "new-1"])

    assert found == {"pump-1": HASH, "pump-2": None}
