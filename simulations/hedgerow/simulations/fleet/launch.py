"""How each device's agent is started: as shipped, with a wrong clock, or with trainers that lie."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from hedgerow.simulations.fleet.running import Launch
from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import ByzantineSpec, Scenario

BYZANTINE = "hedgerow.simulations.fleet.byzantine_agent"


def launcher(scenario: Scenario, world: World, environment: Mapping[str, str]) -> Callable[[int], Launch]:
    """Return what tells how to start a device. ``label-flip`` needs nothing here: its data lie, not its trainer."""
    spec = scenario.faults.byzantine

    def launch(device: int) -> Launch:
        if spec is None or spec.kind == "label-flip" or not bool(world.byzantine[device]):
            return Launch(environment=environment)
        return Launch(_command(spec, scenario.seed, device), environment)

    return launch


def _command(spec: ByzantineSpec, seed: int, device: int) -> list[str]:
    words = (spec.kind, spec.scale, spec.from_round, seed, device)
    return [sys.executable, "-m", BYZANTINE, *map(str, words)]
