"""An asynchronous round: devices train all the time, each on the version it began from (Nguyen et al. 2022, algorithm 1).

``concurrency`` devices train at once. Every ``buffer_size`` arrivals make a release: the mean of the updates, each first
multiplied by 1 / (1 + τ)^``staleness_exponent``, τ being how many versions it is behind; the denominator counts it whole.
A device that ends is replaced by another, drawn at random, on the newest version; no device begins twice on the same one.

How long a device takes does not depend on what it learns, so that all arrivals of a release are known before any of
them is trained, and are trained side by side. A device that never answers is given up after ``job.deadlines.round_s``;
one that is merely slow counts whenever it comes.
"""

from __future__ import annotations

import heapq
import time

import numpy as np

from hedgerow.server.rounds.models import model_bytes
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.packing import Vector
from hedgerow.shared.privacy.noise import SeededStream
from hedgerow.simulations.engine.protocol import Batch
from hedgerow.simulations.run.flight import Flight, Leg
from hedgerow.simulations.run.records import RoundRecord
from hedgerow.simulations.run.releasing import release
from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.state import State
from hedgerow.simulations.run.trips import trip_of
from hedgerow.simulations.run.world import Trip

_TRIES = 10_000
_DEFAULTS = {"buffer_size": 10.0, "concurrency": 20.0, "staleness_exponent": 0.5}


class Airspace:
    """One release in the making: who begins, who arrives. Changes the state's flight and clock."""

    def __init__(self, run: Run, state: State) -> None:
        self._run = run
        self._state = state
        if state.flight is None:
            state.flight = Flight(legs=[], asked=0, models={}, used=[])
        self._flight = state.flight
        self._trip: Trip = trip_of(run, state.round + 1)
        self._able = run.world.fits(run.setting.n) & (_counts(run, state) > 0)
        if run.mechanism.mode == "example":
            # As its own ledger would: a device charges no more rounds than the job planned.
            self._able &= state.totals.rounds < run.rounds
        self.begun: list[int] = []
        self.arrived: list[Leg] = []
        self.lost = 0
        self.energy_j = 0.0

    def gather(self, size: int, concurrency: int) -> None:
        """Let time pass until ``size`` updates have arrived, or nobody is left who could send one.

        Raises ConfigError if nobody is ever there, or nobody who begins ever answers.
        """
        for _ in range(_TRIES):
            self._fill(concurrency)
            while len(self.arrived) < size and self._flight.legs:
                self._land(heapq.heappop(self._flight.legs))
                if self.lost >= _TRIES and not self.arrived:
                    raise ConfigError(
                        f"scenario {self._run.setting.scenario.name}: faults.dropout: none of {self.lost} devices in a row "
                        "answered; expected a share below 1"
                    )
                if len(self.arrived) < size:
                    self._fill(concurrency)
            if self.arrived:
                return
            self._state.simulated_s += self._run.setting.scenario.job.deadlines.round_s
        raise ConfigError(
            f"scenario {self._run.setting.scenario.name}: availability: nobody who could take part was there in {_TRIES} "
            "deadlines"
        )

    def _land(self, leg: Leg) -> None:
        state, device = self._state, leg.device
        state.simulated_s = max(state.simulated_s, leg.ends_s)
        state.totals.train_s[device] += self._trip.train_s[device]
        self.energy_j += float(self._trip.energy_j[device])
        if leg.dropped:
            self.lost += 1
            # Nothing of it came: it may try this version again.
            self._flight.used = [one for one in self._flight.used if one != device]
            return
        state.totals.bytes_up[device] += self._run.setting.bytes_up
        self.arrived.append(leg)

    def _fill(self, concurrency: int) -> None:
        while len(self._flight.legs) < concurrency and self._begin():
            pass

    def _begin(self) -> bool:
        """Let one more device begin; return whether there was one."""
        while (drawn := self._drawn()) is not None:
            number, device = drawn
            if self._run.mechanism.terms(device) is not None:
                self._send_off(number, device)
                return True
        return False

    def _drawn(self) -> tuple[int, int] | None:
        """Return the next draw's number and a device that is there and free; None if there is none."""
        run, state, flight = self._run, self._state, self._flight
        number, flight.asked = flight.asked, flight.asked + 1
        free = self._able & run.world.there(number + 1, state.simulated_s)
        free[[leg.device for leg in flight.legs]] = False
        free[flight.used] = False
        candidates = np.flatnonzero(free)
        if candidates.size == 0:
            return None
        word = SeededStream.of(run.setting.scenario.seed, "begins", number).words(1)[0]
        device = int(candidates[int(word) % candidates.size])
        flight.used.append(device)
        return number, device

    def _send_off(self, number: int, device: int) -> None:
        run, state, flight = self._run, self._state, self._flight
        dropped = bool(run.world.dropped(number + 1)[device])
        takes_s = run.setting.scenario.job.deadlines.round_s if dropped else float(self._trip.total_s[device])
        heapq.heappush(flight.legs, Leg(state.simulated_s + takes_s, number, device, state.round, dropped))
        flight.models.setdefault(state.round, bytes(model_bytes(state.model)))
        state.totals.rounds[device] += 1
        state.totals.bytes_down[device] += run.setting.bytes_down
        self.begun.append(device)


def play_release(run: Run, state: State) -> RoundRecord:
    """Play until the next release: ``state`` becomes what it is after it. Raises as ``synchronous.play_round``."""
    began = time.monotonic()
    options = {**_DEFAULTS, **run.setting.scenario.job.strategy.options}
    round = state.round + 1
    air = Airspace(run, state)
    air.gather(int(options["buffer_size"]), int(options["concurrency"]))
    # What is drawn is paid before it exists.
    run.charge(round, air.begun)
    legs = sorted(air.arrived, key=lambda leg: leg.number)
    staleness = [state.round - leg.version for leg in legs]
    whole = {leg.device: run.weight(leg.device, leg.version + 1) for leg in legs}
    batch = _batch(run, state, legs, staleness, options["staleness_exponent"])
    answer = run.train(batch, round)
    counted = sum(whole[outcome.device] for outcome in answer.outcomes if outcome.rejected is None)
    events: tuple[str, ...] = (f"{air.lost} never answered",) if air.lost else ()
    events += release(run, state, round, answer, whole, counted)
    state.round = round
    _tidy(state)
    record = RoundRecord(
        round=round,
        drawn=len(air.begun),
        counted=answer.count,
        dropped=air.lost,
        bytes_up=len(legs) * run.setting.bytes_up,
        bytes_down=len(air.begun) * run.setting.bytes_down,
        energy_j=air.energy_j,
        staleness=float(np.mean(staleness)),
        events=events,
    )
    return run.record(state, record, answer, whole, began)


def _batch(run: Run, state: State, legs: list[Leg], staleness: list[int], exponent: float) -> Batch:
    """Return the arrivals as tasks over the versions that they began from."""
    flight = state.flight
    if flight is None:
        raise ValueError("nothing is under way")
    versions = sorted({leg.version for leg in legs})
    models: list[Vector] = [np.frombuffer(flight.models[v], "<f4").astype(np.float32) for v in versions]
    tasks = [
        run.task(
            leg.device,
            leg.version + 1,
            run.weight(leg.device, leg.version + 1) * (1.0 + behind) ** -exponent,
            versions.index(leg.version),
        )
        for leg, behind in zip(legs, staleness, strict=True)
    ]
    return Batch(models, tasks)


def _tidy(state: State) -> None:
    """Forget models that nobody trains on any more; the next version is nobody's yet."""
    if state.flight is not None:
        wanted = {leg.version for leg in state.flight.legs}
        state.flight.models = {v: model for v, model in state.flight.models.items() if v in wanted}
        state.flight.used = []


def _counts(run: Run, state: State) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.diff(run.setting.population.at(state.round + 1).offsets)
