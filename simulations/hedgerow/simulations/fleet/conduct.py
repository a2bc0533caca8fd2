"""Follows a job on a running fleet from outside, and lets happen what the scenario's schedule says."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any, Final

from hedgerow.shared.errors import TransportError
from hedgerow.simulations.fleet.running import FINAL, LOOK_S, RunningFleet
from hedgerow.simulations.fleet.schedule import RoundFaults, faults_in
from hedgerow.simulations.fleet.storage import stored_in
from hedgerow.simulations.population.raw import RawPopulation
from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import Scenario

AWAY_S: Final = 30.0
"""A device that left comes back after so long at the latest: rounds may wait for it."""
SILENT_S: Final = 30.0
SILENCE_S: Final = 120.0
"""So long may the server not answer before the run is given up."""
SCORES_S: Final = 30.0
STALL_S: Final = 300.0
"""So long, beyond three deadlines of a round, may a job stand still."""


class StalledError(TransportError):
    """A job came to a standstill."""


class Conductor:
    """One job's run. ``events`` says per round what was done to the fleet; ``tell`` hears each committed round."""

    def __init__(
        self,
        fleet: RunningFleet,
        job_id: str,
        scenario: Scenario,
        world: World,
        raw: RawPopulation,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self.events: dict[int, list[str]] = defaultdict(list)
        self._fleet = fleet
        self._job_id = job_id
        self._scenario = scenario
        self._world = world
        self._raw = raw
        self._tell = tell
        self._begun = 0
        self._round = -1
        self._moved_s = 0.0
        self._told = 0
        self._first_s = time.monotonic()
        self._away: dict[int, tuple[int, float]] = {}
        self._silent: dict[int, float] = {}
        self._stored = stored_in(raw, scenario, world, 1)

    def follow(self, asked: Callable[[], bool]) -> str:
        """Play the job to its end and return ``finished``, ``failed``, or ``interrupted`` if ``asked`` came true.

        A job that has committed all its rounds is finished: packaging is not waited for. Raises TransportError if a
        process ends that nobody ended, the server stays away, or no round comes to its end.
        """
        heard_s = scored_s = time.monotonic()
        while True:
            self._fleet.work.check()
            try:
                job = self._fleet.job(self._job_id)
                heard_s = time.monotonic()
                if job["round"] < job["rounds"]:
                    scored_s = heard_s
                self._check_progress(job, heard_s)
                self._report(job)
                if ended := self._ended(job, heard_s - scored_s):
                    return ended
                self._look(job)
            except StalledError:
                raise
            except TransportError:
                if time.monotonic() - heard_s > SILENCE_S:
                    raise
            if asked():
                return "interrupted"
            time.sleep(LOOK_S)

    def _check_progress(self, job: dict[str, Any], now: float) -> None:
        if job["round"] != self._round:
            self._round, self._moved_s = job["round"], now
        patience_s = STALL_S + 3 * self._scenario.job.deadlines.round_s
        if now - self._moved_s > patience_s and job["round"] < job["rounds"]:
            trainers = {one["device"]: one["trainer"] for one in self._fleet.devices()}
            raise StalledError(
                f"round {job['round'] + 1} is not at its end after {patience_s:.0f} s; trainers: {trainers}; logs are in "
                f"{self._fleet.work.logs}"
            )

    def _report(self, job: dict[str, Any]) -> None:
        if job["round"] > self._told:
            for one in self._fleet.rounds(self._job_id)[self._told :]:
                self._tell(one)
                self._told = one["round"]

    def _ended(self, job: dict[str, Any], unscored_s: float) -> str:
        if job["round"] >= job["rounds"]:
            last = self._fleet.rounds(self._job_id)[-1]
            return "finished" if last["scores"] or unscored_s > SCORES_S or job["state"] in FINAL else ""
        return "failed" if job["state"] in FINAL else ""

    def _look(self, job: dict[str, Any]) -> None:
        under_way = job["round"] + 1
        if under_way > job["rounds"] or job["state"] != "running":
            return
        self._bring_back(under_way)
        while self._begun < under_way:
            self._begun += 1
            self._begin(self._begun, under_way)

    def _begin(self, scheduled: int, under_way: int) -> None:
        """Let happen what is scheduled. Rounds that passed unseen between two looks have their faults now."""
        self._change_stores(under_way)
        faults = faults_in(self._scenario, self._world, scheduled, time.monotonic() - self._first_s)
        if not faults.quiet:
            self._strike(faults, under_way)

    def _strike(self, faults: RoundFaults, round: int) -> None:
        fleet = self._fleet
        for device in faults.silent - self._silent.keys():
            fleet.network.cut(device)
            self._silent[device] = time.monotonic()
            self._note(round, f"device {device} cut off")
        for device, rounds in faults.leave.items():
            if fleet.runs(device):
                fleet.stop(device)
                self._away[device] = (round + rounds, time.monotonic() + AWAY_S)
                self._note(round, f"device {device} left")
        for device in faults.kill:
            if fleet.runs(device):
                fleet.kill(device)
                fleet.start(device)
                self._note(round, f"device {device} killed and started")
        if faults.server_kill:
            fleet.kill_server()
            fleet.start_server()
            self._note(round, "server killed and started")

    def _bring_back(self, round: int) -> None:
        now = time.monotonic()
        for device, (back, latest_s) in list(self._away.items()):
            if round >= back or now >= latest_s:
                del self._away[device]
                self._fleet.start(device)
                self._note(round, f"device {device} came back")
        for device, since_s in list(self._silent.items()):
            if round > self._begun or now - since_s > SILENT_S:
                del self._silent[device]
                self._fleet.network.heal(device)

    def _change_stores(self, round: int) -> None:
        """Give devices whose data changed with this round another disk; whoever runs is stopped for it."""
        wanted = stored_in(self._raw, self._scenario, self._world, round)
        if wanted.key == self._stored.key:
            return
        for device in wanted.differs(self._stored):
            ran = self._fleet.runs(device)
            if ran:
                self._fleet.stop(device)
            self._fleet.store(device, wanted.devices[device])
            if ran:
                self._fleet.start(device)
        self._stored = wanted
        self._note(round, "devices have other samples")

    def _note(self, round: int, what: str) -> None:
        self.events[round].append(what)


def slow_pids(fleet: RunningFleet, world: World) -> Callable[[], Collection[int]]:
    """Return what gives the process ids of the stragglers' agents that run."""

    def pids() -> list[int]:
        running = [
            agent.process
            for device, agent in enumerate(fleet.agents)
            if bool(world.straggler[device]) and agent.process is not None
        ]
        return [process.pid for process in running if process.poll() is None]

    return pids
