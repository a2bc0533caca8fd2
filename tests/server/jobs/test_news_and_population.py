"""What a job tells the bus, how often; whom it may draw, and whom it asks to train, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.support.job_parts import Registry

from hedgerow.server.bus import QUEUE_LIMIT, Bus, News
from hedgerow.server.jobs import news as news_module
from hedgerow.server.jobs import population as population_module
from hedgerow.server.jobs.news import JobNews
from hedgerow.server.jobs.population import FrozenPopulation, Population
from hedgerow.server.rounds.book import Book, Contribution
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import RoundResult
from hedgerow.shared.job import CohortSpec, Job, PopulationSpec, PrivacySpec
from hedgerow.shared.messages import JobAssignment

JOB = Job("t", "r", PrivacySpec("none"), rounds=7, cohort=CohortSpec(quorum=2))
RESULT = RoundResult(5, 3, 1, 1, {"stale": 1}, False, 70, 80, 1.5, None, {"loss": 0.5})
ASSIGNMENT = JobAssignment("j-1", "r", "h")


def told(say: Callable[[JobNews], None], scored: Callable[..., None] = lambda *_: None) -> list[News]:
    """Return what is on the bus after ``say``."""

    async def scenario() -> list[News]:
        bus = Bus()
        bus.attach(asyncio.get_running_loop())
        with bus.subscribe() as queue:
            say(JobNews(bus, "j-1", JOB, scored))
            await asyncio.sleep(0)
            return [queue.get_nowait() for _ in range(queue.qsize())]

    return asyncio.run(scenario())


def book() -> Book:
    made = Book(["a", "b", "c", "d"])
    made.settle(Contribution("a", "counted"))
    made.settle(Contribution("b", "rejected", "stale"))
    made.settle(Contribution("c", "declined", "no data"))
    made.bytes_up = 42
    return made


def test_progress_tells_counts_and_never_who() -> None:
    (found,) = told(lambda news: news.progress(3, book()))

    assert found.topic == "round.progress"
    assert found.data == {
        "job_id": "j-1", "round": 3, "rounds": 7, "drawn": 4, "replied": 1, "rejected": 1, "dropped": 1, "bytes_up": 42,
    }  # fmt: skip


def test_progress_is_told_once_in_a_while_however_many_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(news_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def many(news: JobNews) -> None:
        for _ in range(10):
            news.progress(1, book())
            now[0] += 0.0625

    assert len(told(many)) == 3, "at 0, 0.25 and 0.5 s"


@pytest.mark.parametrize(
    ("say", "topic", "data"),
    [
        (
            lambda news: news.rejected(2, "pump-1", "stale", "too late"),
            "update.rejected",
            {"job_id": "j-1", "round": 2, "device": "pump-1", "reason": "stale", "detail": "too late"},
        ),
        (
            lambda news: news.regressed(2, "pump-1", "4 entries were 6"),
            "ledger.regressed",
            {"job_id": "j-1", "round": 2, "device": "pump-1", "detail": "4 entries were 6"},
        ),
        (
            lambda news: news.aborted(Plan("j-1", 4, 2, ("a", "b")), 1, "below quorum"),
            "round.aborted",
            {
                "job_id": "j-1", "round": 4, "rounds": 7, "attempt": 2, "replied": 1, "quorum": 2,
                "reason": "below quorum",
            },
        ),
    ],
)  # fmt: skip
def test_each_piece_of_news_has_its_topic_and_its_figures(
    say: Callable[[JobNews], None], topic: str, data: dict[str, Any]
) -> None:
    assert told(say) == [News(topic, data)]


def test_a_commit_tells_every_figure_of_the_result_and_has_the_model_scored() -> None:
    scored: list[tuple[int, Any]] = []
    model = np.ones(3, np.float32)
    (found,) = told(
        lambda news: news.committed(5, RESULT, model, "f" * 64),
        lambda number, given: scored.append((number, given)),
    )

    assert found.topic == "round.committed"
    assert {name: found.data[name] for name in RESULT.__struct_fields__} == {
        name: getattr(RESULT, name) for name in RESULT.__struct_fields__
    }
    assert (found.data["round"], found.data["rounds"], found.data["model_sha256"]) == (5, 7, "f" * 64)
    ((number, given),) = scored
    assert number == 5
    assert given is model


def test_a_listener_that_never_listens_loses_the_oldest_news_only() -> None:
    def many(news: JobNews) -> None:
        for number in range(QUEUE_LIMIT + 5):
            news.rejected(number, "d", "stale", "")

    found = told(many)
    assert [one.data["round"] for one in found] == list(range(5, QUEUE_LIMIT + 5))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_device_is_asked_once_and_one_that_joins_later_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(population_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    registry = Registry(["a", "b"])
    asked: list[list[str]] = []
    keep = registry.set_job

    def set_job(devices: Any, assignment: JobAssignment) -> None:
        asked.append(list(devices))
        keep(devices, assignment)

    monkeypatch.setattr(registry, "set_job", set_job)

    async def scenario() -> None:
        population = Population(registry, registry, PopulationSpec(), ASSIGNMENT)
        assert await population() == ("a", "b")
        registry.names.append("c")
        assert await population() == ("a", "b"), "read a moment ago"
        now[0] = 1.5
        assert await population() == ("a", "b", "c")
        registry.names.remove("a")
        now[0] = 3.0
        assert await population() == ("b", "c")
        registry.names.append("a")
        now[0] = 4.5
        assert await population() == ("b", "c", "a")

    run(scenario())
    assert asked == [["a", "b"], ["c"]]


def test_a_filter_holds_for_those_who_are_drawn_and_those_who_are_asked() -> None:
    registry = Registry(["a", "b", "c"])

    async def scenario() -> None:
        population = Population(registry, registry, PopulationSpec(devices=("b", "nobody")), ASSIGNMENT)
        assert await population() == ("b",)

    run(scenario())
    assert registry.assigned == {"j-1": {"b"}}


def test_a_frozen_population_stays_whoever_joins_or_leaves() -> None:
    registry = Registry(["a", "b"])

    async def scenario() -> None:
        population = FrozenPopulation(["a", "b", "gone"], registry, ASSIGNMENT)
        assert registry.assigned == {}, "nobody is asked before the first round"
        assert await population() == ("a", "b", "gone")
        registry.names[:] = ["z"]
        registry.assigned.clear()
        assert await population() == ("a", "b", "gone")

    run(scenario())
    assert registry.assigned == {}, "and nobody twice"
