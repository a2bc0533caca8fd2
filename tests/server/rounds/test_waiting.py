"""For whom a round waits, and how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.rounds.waiting import Presence, wait_until

REJOIN_S = 30.0
DEADLINE = 1000.0


def until(presence: Presence, owing: set[str], now: float, seen: set[str] | None = None) -> float | None:
    return wait_until(owing, seen or set(), presence, now=now, deadline=DEADLINE, rejoin_wait_s=REJOIN_S)


def test_a_connected_trainer_is_waited_for_until_the_deadline() -> None:
    presence = Presence(0.0)
    presence.note(frozenset({"a"}), 5.0)
    assert until(presence, {"a", "b"}, 500.0, {"a"}) == DEADLINE


def test_nobody_owing_or_the_deadline_past_ends_the_wait() -> None:
    presence = Presence(0.0)
    presence.note(frozenset({"a"}), 1.0)
    assert until(presence, set(), 5.0) is None
    assert until(presence, {"a"}, DEADLINE) is None


def test_a_trainer_that_died_in_this_round_is_not_waited_for() -> None:
    presence = Presence(0.0)
    presence.note(frozenset({"a"}), 1.0)
    presence.note(frozenset(), 10.0)
    assert until(presence, {"a"}, 10.0, {"a"}) is None


def test_one_that_was_away_when_the_round_began_has_its_time_to_rejoin_once() -> None:
    presence = Presence(0.0)
    presence.note(frozenset({"a"}), 1.0)
    presence.note(frozenset(), 10.0)
    assert until(presence, {"a"}, 11.0) == 10.0 + REJOIN_S
    assert until(presence, {"a"}, 39.9) == 10.0 + REJOIN_S
    assert until(presence, {"a"}, 40.0) is None


def test_one_that_never_came_is_away_since_the_job_began() -> None:
    presence = Presence(100.0)
    assert until(presence, {"a"}, 120.0) == 130.0
    assert until(presence, {"a"}, 130.0) is None


def test_the_deadline_bounds_the_time_to_rejoin() -> None:
    presence = Presence(990.0)
    assert until(presence, {"a"}, 991.0) == DEADLINE


def test_coming_back_starts_the_count_anew() -> None:
    presence = Presence(0.0)
    for online, now in (
        (frozenset({"a"}), 1.0),
        (frozenset(), 2.0),
        (frozenset({"a"}), 50.0),
        (frozenset(), 60.0),
    ):
        presence.note(online, now)
    assert presence.away_since("a") == 60.0
    assert until(presence, {"a"}, 61.0) == 90.0


@given(
    steps=st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.floats(0.1, 50)), max_size=12),
    owing=st.sets(st.sampled_from("abcd")),
    seen=st.sets(st.sampled_from("abcd")),
)
def test_a_wait_is_always_ahead_and_never_beyond_the_deadline(
    steps: list[tuple[set[str], float]], owing: set[str], seen: set[str]
) -> None:
    presence, now = Presence(0.0), 0.0
    for online, later in steps:
        now += later
        presence.note(frozenset(online), now)
    end = until(presence, owing, now, seen)
    assert end is None or now < end <= DEADLINE
