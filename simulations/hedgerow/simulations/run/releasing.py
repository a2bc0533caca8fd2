"""From what came to the next model: quorum, mechanism, strategy, in this order and in one place for both loops."""

from __future__ import annotations

import numpy as np

from hedgerow.server.aggregation.aggregator import AggregationError
from hedgerow.server.rounds.rules import Release, may_release
from hedgerow.simulations.engine.protocol import Answer
from hedgerow.simulations.run.rule import Gathered
from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.state import State


def release(
    run: Run, state: State, round: int, answer: Answer, weights: dict[int, float], weight: float
) -> tuple[str, ...]:
    """Make the next model of what came, or leave it as it is; return what there is to tell.

    ``weight`` is what the sum is divided by unless the mechanism has a constant of its own.
    """
    job = run.setting.scenario.job
    decision = may_release(job, answer.count)
    short = f"{answer.count} updates, quorum {job.cohort.quorum}"
    if decision is Release.ABORT:
        return (f"not released: {short}",)
    noised = run.mechanism.release(round, answer.total, weight, state.mechanism)
    gathered = Gathered(round, noised.total, noised.weight, answer, weights)
    try:
        state.rule, after = run.rule.release(state.rule, state.model, gathered)
    except AggregationError as error:
        return (f"not released: {error}",)
    # In place: it is where the engine trains from. In one call: Ctrl-C comes before it or after it.
    np.copyto(state.model, after)
    state.mechanism = noised.state
    return (short,) if decision is Release.RELEASE_WITH_ALERT else ()
