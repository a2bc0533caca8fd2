from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.fleet.counting import MAX_SEQUENCE, count_batch
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import Event, GapRecord, Notice


def event(sequence: int) -> Event:
    return Event(sequence, 0, "info", Notice("n", str(sequence)))


def gap(first: int, last: int) -> Event:
    return Event(last, 0, "warning", GapRecord(first, last, "full"))


def test_new_events_move_the_mark() -> None:
    counted = count_batch([event(1), event(2)], 0)

    assert (counted.up_to, counted.missing) == (2, None)
    assert [e.sequence for e in counted.new] == [1, 2]


def test_what_is_here_already_is_not_new() -> None:
    counted = count_batch([event(n) for n in range(3, 8)], 5)

    assert [e.sequence for e in counted.new] == [6, 7]
    assert count_batch([event(3)], 5).up_to == 5
    assert count_batch([], 5).up_to == 5


def test_gap_record_stands_for_its_range() -> None:
    counted = count_batch([event(1), gap(2, 9), event(10)], 0)

    assert (counted.up_to, counted.missing, len(counted.new)) == (10, None, 3)


def test_gap_that_grew_over_what_is_here_is_new() -> None:
    assert count_batch([gap(1, 9)], 5).up_to == 9


def test_jump_between_batches_is_noted_as_missing() -> None:
    counted = count_batch([event(10), event(11)], 5)

    assert (counted.up_to, counted.missing) == (11, (6, 9))


@pytest.mark.parametrize(
    "events",
    [
        [event(1), event(3)],
        [event(2), event(1)],
        [event(1), event(1)],
        [event(0)],
        [event(-5)],
        [event(MAX_SEQUENCE)],
        [gap(5, 4)],
        [gap(0, 4)],
        [event(1), gap(3, 4)],
        [event(3), gap(2, 4)],
        [Event(1, 2**63, "info", Notice("n", ""))],
    ],
)
def test_what_no_outbox_sends_is_refused(events: list[Event]) -> None:
    with pytest.raises(ContentError, match="event"):
        count_batch(events, 0)


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), max_size=30))
def test_resending_anything_in_any_size_counts_each_once(total: int, sends: list[tuple[int, int]]) -> None:
    up_to = 0
    taken: list[int] = []
    for back, size in [*sends, (1, 60)]:
        first = max(1, up_to + 2 - back)  # at most one beyond what was acknowledged, often before
        batch = [event(n) for n in range(first, min(total, first + size - 1) + 1)]
        counted = count_batch(batch, up_to)
        taken += [e.sequence for e in counted.new]
        assert counted.missing is None
        up_to = counted.up_to

    assert taken == list(range(1, up_to + 1))
