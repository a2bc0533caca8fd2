"""Following a job: faults happen in their round, whoever left comes back, and a job that stands still is given up."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_scenarios import scenario

from hedgerow.models.recipe import find_recipe
from hedgerow.shared.errors import TransportError
from hedgerow.simulations.fleet import conduct
from hedgerow.simulations.fleet.conduct import Conductor, StalledError
from hedgerow.simulations.fleet.schedule import faults_in
from hedgerow.simulations.population.raw import raw_population
from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import Scenario

DEVICES, ROUNDS = 6, 12


class Played:
    """Stands in for the processes: a job that commits one round a look, and a diary of what was done to the fleet."""

    def __init__(self, rounds: int = ROUNDS, unheard: Container[int] = (), ends: str = "") -> None:
        self.diary: list[tuple[str, int]] = []
        self.up = dict.fromkeys(range(DEVICES), True)
        self.work = self
        self.network = self
        self.logs = Path("logs")
        self._rounds = rounds
        self._looks = 0
        self._unheard = unheard
        self._ends = ends

    def check(self) -> None:
        """Nothing has ended by itself."""

    def job(self, job_id: str) -> dict[str, Any]:
        self._looks += 1
        if self._looks in self._unheard:
            raise TransportError("the server does not answer")
        done = min(self._looks - 1, self._rounds)
        state = self._ends if self._ends and done == self._rounds else "running"
        return {"job_id": job_id, "round": done, "rounds": ROUNDS, "state": state, "reason": ""}

    def rounds(self, job_id: str) -> list[dict[str, Any]]:
        del job_id
        return [
            {"round": n + 1, "scores": {"accuracy": 0.5}} for n in range(min(self._looks - 1, self._rounds))
        ]

    def devices(self) -> list[dict[str, Any]]:
        return [{"device": f"device-{n}", "trainer": "failed"} for n in range(DEVICES)]

    def runs(self, device: int) -> bool:
        return self.up[device]

    def kill(self, device: int) -> None:
        self._do("kill", device, False)

    def stop(self, device: int) -> int:
        self._do("stop", device, False)
        return 0

    def start(self, device: int) -> None:
        assert not self.up[device], "started twice"
        self._do("start", device, True)

    def store(self, device: int, data: object) -> None:
        assert not self.up[device], "a running agent's store is not replaced"
        assert len(data) > 0  # type: ignore[arg-type]  # whatever it is, it has samples
        self.diary.append(("store", device))

    def cut(self, device: int) -> None:
        self.diary.append(("cut", device))

    def heal(self, device: int) -> None:
        self.diary.append(("heal", device))

    def kill_server(self) -> None:
        self.diary.append(("kill server", -1))

    def start_server(self) -> None:
        self.diary.append(("start server", -1))

    def _do(self, what: str, device: int, up: bool) -> None:
        self.up[device] = up
        self.diary.append((what, device))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "LOOK_S", 0.0)


def conductor(
    fleet: Played, told: list[int] | None = None, **changes: Any
) -> tuple[Conductor, Scenario, World]:
    made = scenario(population__devices=DEVICES, job__rounds=ROUNDS, seed=5, engine="fleet", **changes)
    world = World(made, np.zeros(DEVICES, np.int64))
    raw = raw_population(made, find_recipe("digits-cnn"), Path())
    heard: list[int] = [] if told is None else told
    return Conductor(fleet, "job", made, world, raw, lambda one: heard.append(one["round"])), made, world  # type: ignore[arg-type]


def test_every_round_is_told_once_and_in_order() -> None:
    told: list[int] = []
    playing, _, _ = conductor(Played(unheard=(3, 4)), told)

    assert playing.follow(lambda: False) == "finished"
    assert told == list(range(1, ROUNDS + 1))
    assert playing.events == {}


def test_each_scheduled_fault_happens_in_its_round_and_everybody_is_back_at_last() -> None:
    fleet = Played()
    faults: dict[str, Any] = {
        "faults__kill": 0.1,
        "faults__leave": 0.1,
        "faults__server_kill": 0.2,
        "faults__dropout": 0.1,
    }
    playing, made, world = conductor(fleet, **faults)
    playing.follow(lambda: False)
    due = {round: faults_in(made, world, round) for round in range(1, ROUNDS + 1)}

    assert fleet.diary.count(("kill server", -1)) == sum(one.server_kill for one in due.values()) > 0
    for round, one in due.items():
        killed = {e for e in playing.events[round] if "killed and started" in e and "device" in e}
        away = {
            d for before, other in due.items() for d, n in other.leave.items() if before < round < before + n
        }
        assert killed == {f"device {d} killed and started" for d in one.kill - away}
        assert {e for e in playing.events[round] if e.endswith("left")} == {
            f"device {d} left" for d in one.leave.keys() - away
        }
    cut = [d for what, d in fleet.diary if what == "cut"]
    healed = [d for what, d in fleet.diary if what == "heal"]
    assert sum(len(one.silent) for one in due.values()) >= len(cut) > 0
    last = set(due[ROUNDS].silent)
    assert sorted(healed) == sorted(d for n, d in enumerate(cut) if d not in last or d in cut[n + 1 :])
    assert sum(what == "stop" for what, _ in fleet.diary) > 0


def test_devices_whose_data_drift_get_another_store_while_they_stand_still() -> None:
    fleet = Played()
    drift = {"from_round": 4, "rotate_labels": True, "devices": 0.5}
    playing, _, _ = conductor(fleet, population__drift=drift)
    playing.follow(lambda: False)

    stored = [device for what, device in fleet.diary if what == "store"]
    assert len(stored) == len(set(stored)) == DEVICES // 2
    assert playing.events == {4: ["devices have other samples"]}
    assert all(fleet.up.values())


def test_a_job_that_fails_says_so_and_one_that_is_stopped_too() -> None:
    playing, _, _ = conductor(Played(rounds=5, ends="failed"))
    assert playing.follow(lambda: False) == "failed"

    playing, _, _ = conductor(Played())
    assert playing.follow(lambda: True) == "interrupted"


def test_a_job_that_stands_still_is_given_up_with_what_trainers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "STALL_S", 0.05)
    playing, _, _ = conductor(Played(rounds=3), job__deadlines={"round_s": 0.01})

    with pytest.raises(StalledError, match=r"round 4 is not at its end .*'device-0': 'failed'"):
        playing.follow(lambda: False)


def test_a_server_that_stays_away_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "SILENCE_S", 0.05)
    playing, _, _ = conductor(Played(unheard=range(2, 10**9)))

    with pytest.raises(TransportError, match="does not answer"):
        playing.follow(lambda: False)
