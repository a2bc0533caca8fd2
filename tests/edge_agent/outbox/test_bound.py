from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.outbox.bound import Entry, choose, join_gaps


def entry(sequence: int, severity: str = "info", size: int = 10, gap: bool = False) -> Entry:
    return Entry(sequence, sequence, size, severity, gap)  # type: ignore[arg-type]


def test_oldest_go_first() -> None:
    entries = [entry(n) for n in range(1, 6)]

    assert choose(entries, over_bytes=15, over_events=0) == entries[:2]
    assert choose(entries, over_bytes=0, over_events=3) == entries[:3]
    assert choose(entries, over_bytes=0, over_events=0) == []


def test_critical_ones_stay_while_there_are_others() -> None:
    entries = [entry(1, "critical"), entry(2), entry(3, "critical"), entry(4, "warning")]

    assert choose(entries, over_bytes=0, over_events=2) == [entries[1], entries[3]]
    assert choose(entries, over_bytes=0, over_events=3) == [entries[0], entries[1], entries[3]]


def test_gaps_are_never_dropped() -> None:
    entries = [entry(1, gap=True), entry(2)]

    assert choose(entries, over_bytes=10**9, over_events=10) == [entries[1]]


def test_neighbouring_gaps_are_joined() -> None:
    assert join_gaps([(7, 9), (1, 2), (3, 3), (5, 5)]) == [(1, 3), (5, 5), (7, 9)]
    assert join_gaps([]) == []


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 20))))
def test_joined_gaps_cover_the_same_numbers_with_space_between(pairs: list[tuple[int, int]]) -> None:
    gaps = [(first, first + length) for first, length in pairs]
    joined = join_gaps(gaps)

    def numbers(ranges: list[tuple[int, int]]) -> set[int]:
        return {n for first, last in ranges for n in range(first, last + 1)}

    assert numbers(joined) == numbers(gaps)
    assert all(left[1] + 1 < right[0] for left, right in itertools.pairwise(joined))
