"""What goes wrong in which round, drawn from the scenario's seed: the same faults however often they are asked for."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import Scenario

MOST_ROUNDS_AWAY: Final = 2


class RoundFaults(NamedTuple):
    """What happens once a round is under way. ``leave`` maps a device to how many rounds it stays away.

    ``kill`` are devices whose power fails, to come back at once; ``silent`` are cut off from the network until the next
    round; ``server_kill`` ends the server with SIGKILL and starts it again.
    """

    leave: Mapping[int, int] = {}
    kill: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()
    server_kill: bool = False

    @property
    def quiet(self) -> bool:
        """Whether nothing happens."""
        return not (self.leave or self.kill or self.silent or self.server_kill)


def faults_in(scenario: Scenario, world: World, round: int, elapsed_s: float = 0.0) -> RoundFaults:
    """Return the faults of ``round``, counted from 1, which begins ``elapsed_s`` after the first.

    A device has one fault a round: whoever leaves is not killed, whoever is killed is not cut off as well.
    """
    spec = scenario.faults
    devices = world.devices
    leaves = _uniform(scenario.seed, "leave", round, devices) < spec.leave
    kills = (_uniform(scenario.seed, "kill", round, devices) < spec.kill) & ~leaves
    away = 1 + (_uniform(scenario.seed, "away", round, devices) * MOST_ROUNDS_AWAY).astype(int)
    silent = (world.dropped(round) | ~world.there(round, elapsed_s)) & ~leaves & ~kills
    return RoundFaults(
        leave={int(device): int(away[device]) for device in np.flatnonzero(leaves)},
        kill=frozenset(map(int, np.flatnonzero(kills))),
        silent=frozenset(map(int, np.flatnonzero(silent))),
        server_kill=bool(_uniform(scenario.seed, "server-kill", round, 1)[0] < spec.server_kill),
    )


def _uniform(seed: int, label: str, round: int, n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng((seed, zlib.crc32(f"fleet {label}".encode()), round)).random(n)
