"""What an over-full outbox drops, over every mix of sizes, weights and gaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.outbox.bound import Entry, choose, join_gaps
from hedgerow.shared.messages import Severity

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")


@st.composite
def outboxes(draw: st.DrawFn) -> list[Entry]:
    entries, at = [], 0
    for _ in range(draw(st.integers(0, 25))):
        gap = draw(st.booleans()) and draw(st.booleans())
        width = draw(st.integers(1, 4)) if gap else 1
        severity = draw(st.sampled_from(SEVERITIES))
        entries.append(Entry(at + 1, at + width, draw(st.integers(1, 500)), severity, gap))
        at += width
    return entries


@given(outboxes(), st.integers(-100, 3000), st.integers(-5, 30))
def test_enough_is_dropped_or_all_that_may_be(
    entries: list[Entry], over_bytes: int, over_events: int
) -> None:
    dropped = choose(entries, over_bytes=over_bytes, over_events=over_events)

    may = [entry for entry in entries if not entry.gap]
    freed = sum(entry.size for entry in dropped)
    assert (freed >= over_bytes and len(dropped) >= over_events) or len(dropped) == len(may)
    assert not any(entry.gap for entry in dropped)


@given(outboxes(), st.integers(0, 3000), st.integers(0, 30))
def test_no_more_is_dropped_than_must_be(entries: list[Entry], over_bytes: int, over_events: int) -> None:
    dropped = choose(entries, over_bytes=over_bytes, over_events=over_events)

    if dropped:
        # Without the one that was chosen last it would not have been enough.
        weights = [entry.severity == "critical" for entry in dropped]
        last = max((e for e in dropped if (e.severity == "critical") == max(weights)), key=lambda e: e.last)
        freed = sum(entry.size for entry in dropped) - last.size
        assert freed < over_bytes or len(dropped) - 1 < over_events


@given(outboxes(), st.integers(0, 3000), st.integers(0, 30))
def test_a_critical_event_goes_only_when_nothing_else_is_left(
    entries: list[Entry], over_bytes: int, over_events: int
) -> None:
    dropped = choose(entries, over_bytes=over_bytes, over_events=over_events)
    kept = [entry for entry in entries if entry not in dropped and not entry.gap]

    if any(entry.severity == "critical" for entry in dropped):
        assert all(entry.severity == "critical" for entry in kept)


@given(outboxes(), st.integers(0, 3000), st.integers(0, 30))
def test_of_equal_weight_the_oldest_go_and_they_are_told_in_order(
    entries: list[Entry], over_bytes: int, over_events: int
) -> None:
    dropped = choose(entries, over_bytes=over_bytes, over_events=over_events)

    assert [entry.last for entry in dropped] == sorted(entry.last for entry in dropped)
    for critical in (False, True):
        gone = [e.last for e in dropped if (e.severity == "critical") == critical]
        left = [
            e.last
            for e in entries
            if not e.gap and e not in dropped and (e.severity == "critical") == critical
        ]
        assert not gone or not left or max(gone) < min(left)


@given(outboxes())
def test_nothing_is_dropped_while_there_is_room(entries: list[Entry]) -> None:
    assert choose(entries, over_bytes=0, over_events=0) == []
    assert choose(entries, over_bytes=-1, over_events=-1) == []


@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1])), max_size=20
    )
)
def test_joined_gaps_are_the_fewest_that_cover_the_same(gaps: list[tuple[int, int]]) -> None:
    joined = join_gaps(gaps)

    covered = {number for first, last in gaps for number in range(first, last + 1)}
    assert {number for first, last in joined for number in range(first, last + 1)} == covered
    starts = [number for number in covered if number - 1 not in covered]
    assert [first for first, _ in joined] == sorted(starts)
    assert join_gaps(joined) == joined
