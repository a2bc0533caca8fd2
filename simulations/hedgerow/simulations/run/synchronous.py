"""A round in step: draw, send, train, wait for all or for the deadline, release."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from hedgerow.simulations.engine.protocol import Batch
from hedgerow.simulations.run.cohort import Devices, draw
from hedgerow.simulations.run.records import RoundRecord
from hedgerow.simulations.run.releasing import release
from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.state import State
from hedgerow.simulations.run.trips import trip_of
from hedgerow.simulations.run.world import Trip


class Muster(NamedTuple):
    """What became of those drawn, each int64: ``trained`` had the model and time; of them ``late`` ran out of it and
    ``failed`` never answered; ``away``, ``small`` and ``declined`` never began.
    """

    drawn: Devices
    trained: Devices
    late: Devices
    failed: Devices
    away: int
    small: int
    declined: int

    @property
    def in_time(self) -> Devices:
        """Return those whose update came."""
        gone = np.concatenate((self.late, self.failed))
        return self.trained[~np.isin(self.trained, gone)]

    def events(self) -> tuple[str, ...]:
        """Return in words what went wrong."""
        told = (
            (self.away, "away"),
            (self.small, "without the memory"),
            (self.declined, "declined"),
            (self.failed.size, "never answered"),
            (self.late.size, "late"),
        )
        return tuple(f"{count} {what}" for count, what in told if count)


def play_round(run: Run, state: State) -> RoundRecord:
    """Play one round: ``state`` becomes what it is after it. Raises EngineError, ContentError, StorageError."""
    began = time.monotonic()
    round = state.round + 1
    trip = trip_of(run, round)
    muster = _muster(run, state, round, trip)
    # What is drawn is paid before it exists: a device that then fails has drawn its noise all the same.
    run.charge(round, muster.trained.tolist())
    weights = {int(device): run.weight(int(device), round) for device in muster.in_time}
    tasks = [run.task(device, round, weight) for device, weight in weights.items()]
    answer = run.train(Batch([state.model], tasks, run.rule.want, run.rule.control(state.rule)), round)
    events = muster.events() + release(run, state, round, answer, weights, answer.weight)
    state.round = round
    took_s = _account(run, state, muster, trip)
    state.simulated_s += took_s
    sent = muster.trained.size - muster.failed.size
    record = RoundRecord(
        round=round,
        drawn=int(muster.drawn.size),
        counted=answer.count,
        dropped=int(muster.drawn.size - muster.in_time.size),
        bytes_up=sent * run.setting.bytes_up,
        bytes_down=int(muster.trained.size) * run.setting.bytes_down,
        energy_j=float(trip.energy_j[muster.trained].sum()),
        events=events,
    )
    return run.record(state, record, answer, weights, began)


def _muster(run: Run, state: State, round: int, trip: Trip) -> Muster:
    setting, world = run.setting, run.world
    scenario = setting.scenario
    drawn = draw(scenario.job.cohort, world.devices, run.cohort_seed, round)
    there = drawn[world.there(round, state.simulated_s)[drawn]]
    able = there[world.fits(setting.n)[there]]
    counts = np.diff(setting.population.at(round).offsets)
    willing = [d for d in able.tolist() if counts[d] > 0 and run.mechanism.terms(d) is not None]
    trained = np.array(willing, np.int64)
    failed = trained[world.dropped(round)[trained]]
    slow = trained[trip.total_s[trained] > scenario.job.deadlines.round_s]
    return Muster(
        drawn=drawn,
        trained=trained,
        late=slow[~np.isin(slow, failed)],
        failed=failed,
        away=drawn.size - there.size,
        small=there.size - able.size,
        declined=able.size - trained.size,
    )


def _account(run: Run, state: State, muster: Muster, trip: Trip) -> float:
    """Add to the devices' totals; return how much simulated time the round took."""
    totals, setting = state.totals, run.setting
    totals.rounds[muster.trained] += 1
    totals.bytes_down[muster.trained] += setting.bytes_down
    totals.train_s[muster.trained] += trip.train_s[muster.trained]
    sent = muster.trained[~np.isin(muster.trained, muster.failed)]
    totals.bytes_up[sent] += setting.bytes_up
    if muster.drawn.size == 0:
        return 0.0
    deadline_s = setting.scenario.job.deadlines.round_s
    if muster.in_time.size < muster.drawn.size:
        return deadline_s
    return float(trip.total_s[muster.in_time].max())
