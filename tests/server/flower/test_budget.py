"""Upload slots: admitted in order while they fit, given back once, never lost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.flower.budget import InflightBudget


async def start(budget: InflightBudget, key: str, n_bytes: int) -> asyncio.Task[None]:
    task = asyncio.create_task(budget.admit(key, n_bytes))
    await asyncio.sleep(0)
    return task


def test_uploads_wait_while_the_budget_is_full_and_go_on_in_order() -> None:
    async def scenario() -> None:
        budget = InflightBudget(100)
        await budget.admit("a", 60)
        second, third = await start(budget, "b", 60), await start(budget, "c", 10)
        assert not second.done()
        assert not third.done(), "a small one does not overtake"
        budget.release("a")
        await asyncio.gather(second, third)
        assert budget.held_bytes == 70

    asyncio.run(scenario())


def test_an_upload_larger_than_the_budget_is_admitted_alone() -> None:
    async def scenario() -> None:
        budget = InflightBudget(100)
        await budget.admit("huge", 1000)
        other = await start(budget, "other", 1)
        assert not other.done()
        budget.release("huge")
        await other

    asyncio.run(scenario())


def test_a_waiter_that_goes_away_leaves_no_slot_behind() -> None:
    async def scenario() -> None:
        budget = InflightBudget(100)
        await budget.admit("a", 100)
        gone, next_one = await start(budget, "gone", 50), await start(budget, "next", 50)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        budget.release("a")
        await next_one
        assert (budget.held_bytes, budget.waiting) == (50, 0)

    asyncio.run(scenario())


def test_releasing_twice_or_the_unknown_changes_nothing() -> None:
    async def scenario() -> None:
        budget = InflightBudget(100)
        await budget.admit("a", 50)
        await budget.admit("a", 50)
        budget.release("a")
        budget.release("a")
        budget.release("never")
        assert budget.held_bytes == 0

    asyncio.run(scenario())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 120), st.booleans()), max_size=60))
def test_the_bound_holds_whatever_the_order(steps: list[tuple[int, int, bool]]) -> None:
    async def scenario() -> None:
        budget = InflightBudget(100)
        tasks = []
        for key, n_bytes, release in steps:
            if release:
                budget.release(str(key))
            else:
                tasks.append(await start(budget, str(key), n_bytes))
            await asyncio.sleep(0)
            assert budget.held_bytes <= 120
            assert budget.held_bytes <= 100 or len(budget._held) == 1
        for key in range(10):
            budget.release(str(key))
        await asyncio.gather(*tasks, return_exceptions=True)
        for key in range(10):
            budget.release(str(key))
        assert (budget.held_bytes, budget.waiting) == (0, 0)

    asyncio.run(scenario())
