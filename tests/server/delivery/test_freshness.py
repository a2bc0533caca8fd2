"""Signatures are made again in time, and what depends on them follows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.delivery.freshness import LIFETIME, RENEW_BEFORE, expiry, next_due, resign_due

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LONG = {role: NOW + timedelta(days=300) for role in LIFETIME}


def test_nothing_is_due_while_all_hold_for_long() -> None:
    assert resign_due(LONG, NOW) == frozenset()


@pytest.mark.parametrize(
    ("role", "follow"),
    [
        ("timestamp", {"timestamp"}),
        ("snapshot", {"snapshot", "timestamp"}),
        ("targets", {"targets", "snapshot", "timestamp"}),
        ("root", {"root"}),
    ],
)
def test_a_role_that_lapses_takes_those_below_it_along(role: str, follow: set[str]) -> None:
    assert resign_due({**LONG, role: NOW + RENEW_BEFORE[role]}, NOW) == follow


@pytest.mark.parametrize("role", sorted(LIFETIME))
def test_a_role_is_not_due_a_second_early(role: str) -> None:
    assert resign_due({**LONG, role: NOW + RENEW_BEFORE[role] + timedelta(seconds=1)}, NOW) == frozenset()


def test_what_has_lapsed_already_is_due() -> None:
    assert "timestamp" in resign_due({**LONG, "timestamp": NOW - timedelta(days=30)}, NOW)


def test_a_fresh_signature_is_never_due_at_once() -> None:
    fresh = {role: expiry(role, NOW) for role in LIFETIME}

    assert resign_due(fresh, NOW) == frozenset()


@settings(deadline=None)
@given(st.integers(0, 10**8))
def test_the_next_moment_is_exactly_when_something_falls_due(after_s: int) -> None:
    fresh = {role: expiry(role, NOW) for role in LIFETIME}
    moment = NOW + timedelta(seconds=after_s)

    assert bool(resign_due(fresh, moment)) == (moment >= next_due(fresh))
