"""When and how a lost broker is tried again."""

from __future__ import annotations

import random

from hedgerow.edge_agent.telemetry.reconnect import Backoff, VersionChoice


def test_waits_double_up_to_their_bound_and_are_spread() -> None:
    backoff = Backoff(1.0, 8.0, random.Random(1))

    waits = [backoff.wait_s() for _ in range(6)]

    for wait, whole in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert whole / 2 <= wait <= whole
    assert len(set(waits)) == 6


def test_a_connection_that_stood_starts_over() -> None:
    backoff = Backoff(1.0, 8.0)
    for _ in range(5):
        backoff.wait_s()

    backoff.ended(0.5)
    assert backoff.wait_s() >= 4.0
    backoff.ended(60.0)
    assert backoff.wait_s() <= 1.0
    assert backoff.wait_s(longest=True) >= 4.0


def test_sessions_that_end_soon_again_and_again_are_noticed() -> None:
    backoff = Backoff(1.0, 8.0)
    noticed = []
    for stood_s in (0.1, 0.1, 60.0, 0.1, 0.1, 0.1, 60.0):
        backoff.ended(stood_s)
        noticed.append(backoff.unsteady)

    assert noticed == [False, False, False, False, False, True, False]


def test_an_unanswered_version_gives_way_to_the_other_with_more_patience() -> None:
    choice = VersionChoice()
    tried, patience = [], []
    for _ in range(6):
        tried.append(choice.version)
        patience.append(choice.answer_within_s)
        choice.unanswered()

    assert tried == ["5", "3.1.1"] * 3
    assert patience == sorted(patience)
    assert patience[0] < patience[-1] <= 32


def test_an_accepted_version_is_kept() -> None:
    choice = VersionChoice()
    choice.unanswered()
    choice.accepted()

    assert choice.version == "3.1.1"
    assert choice.answer_within_s == 2.0
