"""A batch as orders, and replies as its answer."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.simulation_lean import make_scenario, tasks, tiny_population

from hedgerow.shared.errors import StorageError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Batch, Outcome, Task
from hedgerow.simulations.lean.batches import answer_of, clear, decoded, load, plan
from hedgerow.simulations.lean.context import Shared, World
from hedgerow.simulations.lean.messages import Failed, Trained, TrainOrder, encoder, orders

MODEL = np.arange(4, dtype=np.float32)
WORLD = World(make_scenario("tiny", 6), tiny_population((3, 9, 1, 4, 7, 2)), 4, 4, 0)


def places_of(order: TrainOrder) -> list[int]:
    return [place for unit in order.units for place in unit.places]


def test_orders_hold_every_task_once_and_survive_the_pipe() -> None:
    batch = Batch([MODEL], tasks(range(6)), want="each")
    planned = plan(batch, WORLD, 2, 2, control=True)
    travelled = [orders.decode(encoder.encode(order)) for order in planned.orders]
    assert travelled == planned.orders
    places = [place for order in planned.orders for place in places_of(order)]
    assert places == [1, 4, 3, 0, 5, 2]
    assert all(order.each and order.control and order.batch == 6 for order in planned.orders)


def test_units_do_not_depend_on_the_number_of_workers() -> None:
    batch = Batch([MODEL], tasks(range(6)))
    units = [
        [unit for order in plan(batch, WORLD, 2, workers, control=False).orders for unit in order.units]
        for workers in (1, 2, 50)
    ]
    assert units[0] == units[1] == units[2]


def test_models_that_no_task_trains_from_are_not_copied() -> None:
    shared = Shared.make(shared=False)
    load(Batch([MODEL, MODEL + 1, MODEL + 2], [Task(0, 1, version=2)]), shared, 4, control=False)
    np.testing.assert_array_equal(shared.models.array(3, 4)[2], MODEL + 2)
    np.testing.assert_array_equal(shared.models.array(3, 4)[:2], np.zeros((2, 4)))


def test_no_control_is_a_control_of_zero() -> None:
    shared = Shared.make(shared=False)
    load(Batch([MODEL], tasks([0]), control=MODEL), shared, 4, control=True)
    np.testing.assert_array_equal(shared.control.array(4), MODEL)
    load(Batch([MODEL], tasks([0])), shared, 4, control=True)
    np.testing.assert_array_equal(shared.control.array(4), np.zeros(4))


@pytest.mark.parametrize("wrong", [np.zeros(3, np.float32), np.zeros(4), np.zeros((1, 4), np.float32)])
def test_arrays_of_another_kind_are_refused(wrong: np.ndarray) -> None:
    shared = Shared.make(shared=False)
    with pytest.raises(ValueError, match=r"model 0: expected float32 \(4,\)"):
        load(Batch([wrong], tasks([0])), shared, 4, control=False)
    with pytest.raises(ValueError, match=r"control: expected float32 \(4,\)"):
        load(Batch([MODEL], tasks([0]), control=wrong), shared, 4, control=True)


def outcome(device: int, rejected: str | None = None) -> Outcome:
    return Outcome(device, 3, 0.5, 1.0, 16, 0.1, rejected)


def test_answer_is_in_the_order_of_tasks_and_counts_what_was_not_rejected() -> None:
    batch = Batch([MODEL], [Task(4, 1, weight=2.0), Task(1, 1, weight=3.0), Task(5, 1, weight=0.5)])
    planned = plan(batch, WORLD, 1, 1, control=False)
    shared = Shared.make(shared=False)
    clear(shared, 4, control=False)
    shared.sums.array(4)[:] = [0, 1, -1, 2 << planned.exponent]
    replies = [
        encoder.encode(Trained((2,), (outcome(5),))),
        encoder.encode(Trained((1, 0), (outcome(1, "non-finite"), outcome(4)))),
    ]
    answer = answer_of(batch, planned, replies, shared, 4)
    assert [o.device for o in answer.outcomes] == [4, 1, 5]
    assert (answer.weight, answer.count) == (2.5, 2)
    step = 2.0**-planned.exponent
    np.testing.assert_array_equal(answer.total, [0, step, -step, 2.0])
    # No copy: it is the sum's memory until the next batch.
    assert np.shares_memory(answer.total, shared.sums.array(4))
    clear(shared, 4, control=False)
    np.testing.assert_array_equal(answer.total, np.zeros(4))


def test_an_answer_with_holes_is_none() -> None:
    batch = Batch([MODEL], tasks([0, 1]))
    planned = plan(batch, WORLD, 1, 1, control=False)
    with pytest.raises(EngineError, match="1 tasks of 2 were not answered"):
        answer_of(
            batch, planned, [encoder.encode(Trained((1,), (outcome(1),)))], Shared.make(shared=False), 4
        )


@pytest.mark.parametrize(("storage", "kind"), [(False, EngineError), (True, StorageError)])
def test_failures_are_told_in_the_workers_words(storage: bool, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="what it said"):
        decoded([encoder.encode(Failed("what it said", storage))])


def test_cost_follows_the_samples_that_are_trained_on() -> None:
    training = WORLD.training
    limited = World(
        make_scenario("tiny", 6, training=type(training)(max_samples=4)), WORLD.population, 4, 4, 0
    )
    planned = plan(Batch([MODEL], tasks(range(6))), limited, 1, 1, control=False)
    # Devices 1, 3 and 4 all train on 4 samples: they stay in their order.
    assert [p for order in planned.orders for p in places_of(order)] == [1, 3, 4, 0, 5, 2]
