"""Scoring beside the rounds: newest first, one at a time, the last one always."""

from __future__ import annotations

import asyncio

import numpy as np

from hedgerow.server.jobs.scoring import RoundScorer
from hedgerow.shared.errors import ContentError


def vector(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def run(rounds: int, *, slow: bool, broken: frozenset[int] = frozenset()) -> tuple[list[int], int]:
    kept: list[int] = []
    together = most = 0

    async def score(model: bytes) -> dict[str, float]:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.02 if slow else 0)
        together -= 1
        value = float(np.frombuffer(model, "<f4")[0])
        if value in broken:
            raise ContentError("no score")
        return {"value": value}

    async def keep(round: int, scores: dict[str, float]) -> None:
        assert scores == {"value": float(round)}
        kept.append(round)

    async def main() -> None:
        scorer = RoundScorer(score, keep)
        for round in range(rounds):
            scorer.offer(round, vector(round))
            await asyncio.sleep(0 if slow else 0.005)
        await scorer.settle()

    asyncio.run(main())
    return kept, most


def test_every_round_is_scored_where_scores_are_faster_than_rounds() -> None:
    assert run(6, slow=False) == (list(range(6)), 1)


def test_rounds_that_are_faster_than_scores_are_skipped_but_never_the_last() -> None:
    kept, most = run(50, slow=True)
    assert most == 1
    assert kept[-1] == 49
    assert len(kept) < 50


def test_a_score_that_fails_costs_only_itself() -> None:
    assert run(4, slow=False, broken=frozenset({2}))[0] == [0, 1, 3]


def test_stopping_gives_up_what_is_not_scored() -> None:
    async def never(_model: bytes) -> dict[str, float]:
        await asyncio.Event().wait()
        return {}

    async def keep(round: int, scores: dict[str, float]) -> None:
        raise AssertionError

    async def main() -> None:
        scorer = RoundScorer(never, keep)
        scorer.offer(1, vector(1))
        await asyncio.sleep(0)
        await scorer.stop()
        await RoundScorer(never, keep).stop()

    asyncio.run(main())
