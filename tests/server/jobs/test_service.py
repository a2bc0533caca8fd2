"""Jobs from submission to their end over a real database, with devices of the fake fleet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.fake_fleet import Answer, FakeFleet
from tests.support.job_parts import HASH, Handover, PlainBench, Registry, make_parts, names

from hedgerow.server.bus import News
from hedgerow.server.jobs.records import JobRecord
from hedgerow.server.jobs.run import Parts
from hedgerow.server.jobs.service import JobService
from hedgerow.shared.errors import ConfigError, StorageError
from hedgerow.shared.job import TrainInstruction
from hedgerow.shared.packing import Vector


def toml(
    rounds: int = 3, *, name: str = "pump", mode: str = "none", more: str = "", devices: str = ""
) -> bytes:
    budget = "epsilon = 8.0\ndelta = 1e-5\n" if mode == "example" else ""
    population = f"[population]\ndevices = [{devices}]\n" if devices else ""
    return (
        f'name = "{name}"\nrecipe = "vector"\nrounds = {rounds}\n{population}{more}\n[privacy]\nmode = "{mode}"\n{budget}'
    ).encode()


@asynccontextmanager
async def running(home: Path, fleet: FakeFleet, **more: Any) -> AsyncIterator[tuple[JobService, Parts]]:
    parts = make_parts(home, fleet, **more)
    service = JobService(parts)
    await service.start()
    try:
        yield service, parts
    finally:
        await service.stop()
        await fleet.stop()


async def reaches(service: JobService, job_id: str, *states: str) -> JobRecord:
    async with asyncio.timeout(60):
        while True:
            record = await service.get(job_id)
            assert record is not None
            if record.state in (states or ("delivered", "failed", "cancelled")):
                return record
            await asyncio.sleep(0.005)


def handover(parts: Parts) -> Handover:
    assert isinstance(parts.on_trained, Handover)
    return parts.on_trained


def registry(parts: Parts) -> Registry:
    assert isinstance(parts.desired, Registry)
    return parts.desired


def expected_model(n: int, devices: int, rounds: int) -> np.ndarray:
    """What the steady devices reach by plain averaging, from their formula alone."""
    model = (np.arange(n) % 5).astype(np.float64)
    for number in range(1, rounds + 1):
        pulls = [(np.arange(n) % 7 + d + number) / 64 - model / 4 for d in range(1, devices + 1)]
        model = (model + np.mean(pulls, axis=0)).astype(np.float32).astype(np.float64)
    return model


def slow(_device: str, _instruction: TrainInstruction, model: Vector) -> Answer:
    return Answer(np.ones(model.size, np.float32), delay_s=0.05)


def test_a_job_is_trained_scored_handed_over_and_delivered(tmp_path: Path) -> None:
    async def main() -> None:
        fleet = FakeFleet(names(3))
        async with running(tmp_path, fleet) as (service, parts):
            submitted = await service.submit(toml(4), "pump.toml", "ada")
            record = await reaches(service, submitted.job_id)
            rounds = await service.rounds(submitted.job_id)
            trained = handover(parts).jobs[0]
            expected = expected_model(100, 3, 4)

            assert (submitted.submitted_by, record.state, record.rounds_done) == ("ada", "delivered", 4)
            assert record.result == {"model": "pump", "version": 1}
            assert record.started_at is not None
            assert record.finished_at is not None
            assert record.submitted_at <= record.started_at <= record.finished_at
            assert [r.round for r in rounds] == [1, 2, 3, 4]
            assert all((r.drawn, r.replied, r.rejected, r.dropped) == (3, 3, 0, 0) for r in rounds)
            assert all(r.bytes_up == 3 * 400 and r.bytes_down == 3 * 400 for r in rounds)
            assert np.frombuffer(trained.model, "<f4") == pytest.approx(expected)
            assert trained.scores == {"mean": pytest.approx(float(expected.mean()), rel=1e-6)}
            assert rounds[-1].scores == trained.scores
            assert trained.initial_scores == {"mean": 2.0}
            assert (trained.devices, trained.rounds, trained.epsilon) == (3, 4, None)
            assert fleet.unreleased == 0
            assert not fleet.open_jobs
            assert registry(parts).assigned == {record.job_id: set(names(3))}
            assert registry(parts).cleared == [record.job_id]

    asyncio.run(main())


def test_a_scenario_is_submitted_as_the_job_in_it(tmp_path: Path) -> None:
    text = toml(2).replace(b"[privacy]", b"[job.privacy]").replace(b'name = "pump"', b'[job]\nname = "pump"')
    world = b'name = "a-world"\n[population]\ndevices = 1000\nsource = "digits"\n'

    async def scenario() -> None:
        async with running(tmp_path, FakeFleet(names(2))) as (service, _):
            done = await reaches(service, (await service.submit(world + text, "world.toml")).job_id)
            assert (done.state, done.rounds_done, done.job.name) == ("delivered", 2, "pump")

    asyncio.run(scenario())


def test_news_tell_every_round_with_its_figures_and_never_who_was_drawn(tmp_path: Path) -> None:
    async def main() -> list[News]:
        heard: list[News] = []
        async with running(tmp_path, FakeFleet(names(3))) as (service, parts):
            with parts.bus.subscribe() as queue:
                job = await service.submit(toml(3, mode="example"), "pump.toml")
                await reaches(service, job.job_id)
                await asyncio.sleep(0)
                while not queue.empty():
                    heard.append(queue.get_nowait())
        return heard

    heard = asyncio.run(main())
    states = [news.data["state"] for news in heard if news.topic == "job.state"]
    committed = [news.data for news in heard if news.topic == "round.committed"]
    assert states == ["queued", "running", "packaging", "delivered"]
    assert [data["round"] for data in committed] == [1, 2, 3]
    assert all(
        data["rounds"] == 3 and data["replied"] == 3 and data["bytes_up"] == 1200 for data in committed
    )
    assert [data["epsilon"] for data in committed] == [0.25, 0.5, 0.75]
    assert all(data["metrics"] == {} for data in committed)
    assert [n.data["round"] for n in heard if n.topic == "round.scored"][-1] == 3
    assert not any(name in str(news.data) for news in heard for name in names(3))


def test_admins_see_the_cohort_of_a_round(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, FakeFleet(names(2))) as (service, _):
            job = await service.submit(toml(1), "pump.toml")
            await reaches(service, job.job_id)
            seen = await service.cohort_for_admins(job.job_id, 1)
            assert seen is not None
            assert seen.cohort == ("device-1", "device-2")
            assert [outcome[:3] for outcome in seen.outcomes] == [
                (0, "device-1", "counted"),
                (0, "device-2", "counted"),
            ]
            assert await service.cohort_for_admins(job.job_id, 2) is None

    asyncio.run(main())


REFUSALS: dict[str, tuple[bytes, str]] = {
    "not TOML": (b"name = ", "pump.toml: not TOML"),
    "unknown keys": (toml() + b"clip = 1\n[other]\n", "unknown keys other, privacy.clip"),
    "another recipe": (
        toml().replace(b'"vector"', b'"tensor"'),
        "pump.toml: recipe or parameters: no recipe",
    ),
    "parameters": (toml(more="parameters = { depth = 3 }"), "unknown parameters ['depth']"),
    "nobody": (toml(devices='"device-9"'), "population: no registered device"),
    "unbuilt": (toml().replace(b'"none"', b'"local"'), "'local' is not built yet"),
    "enormous": (toml(more="parameters = { n = 100000001 }"), "at most 100000000"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_job_leaves_no_trace(tmp_path: Path, case: str) -> None:
    text, said = REFUSALS[case]

    async def main() -> None:
        async with running(tmp_path, FakeFleet(names(2))) as (service, _):
            with pytest.raises(ConfigError) as refused:
                await service.submit(text, "pump.toml")
            assert said in str(refused.value)
            assert await service.recent() == []

    asyncio.run(main())


def test_a_fleet_with_another_recipe_hash_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        held = Registry(names(2))
        held.hashes = {"device-1": HASH, "device-2": "b" * 64}
        async with running(tmp_path, FakeFleet(names(2)), registry=held) as (service, _):
            with pytest.raises(ConfigError, match=r"1 have another version \(device-2\)"):
                await service.submit(toml(), "pump.toml")
            allowed = await service.submit(toml(devices='"device-1"'), "pump.toml")
            assert (await reaches(service, allowed.job_id)).state == "delivered"

    asyncio.run(main())


def test_jobs_on_the_same_devices_wait_for_each_other_and_overlap_with_packaging(tmp_path: Path) -> None:
    async def main() -> None:
        fleet = FakeFleet(names(2), slow)
        async with running(tmp_path, fleet) as (service, parts):
            handover(parts).gate.clear()
            first = await service.submit(toml(2, name="one"), "a.toml")
            second = await service.submit(toml(2, name="two"), "b.toml")
            await reaches(service, first.job_id, "running")
            assert (await reaches(service, second.job_id, "queued")).started_at is None
            await reaches(service, first.job_id, "packaging")
            await reaches(service, second.job_id, "running", "packaging")
            handover(parts).gate.set()
            assert (await reaches(service, first.job_id)).state == "delivered"
            assert (await reaches(service, second.job_id)).state == "delivered"
            order = [instruction.job_id for _, instruction in fleet.sent]
            assert order == [first.job_id] * 4 + [second.job_id] * 4

    asyncio.run(main())


def test_jobs_on_different_devices_run_side_by_side(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, FakeFleet(names(2), slow)) as (service, _):
            one = await service.submit(toml(20, devices='"device-1"'), "a.toml")
            two = await service.submit(toml(20, devices='"device-2"'), "b.toml")
            await reaches(service, one.job_id, "running")
            await reaches(service, two.job_id, "running")
            assert (await service.get(one.job_id)).state == "running"  # type: ignore[union-attr]

    asyncio.run(main())


def test_a_running_job_can_be_cancelled_and_its_devices_are_let_go(tmp_path: Path) -> None:
    async def main() -> None:
        fleet = FakeFleet(names(2), slow)
        async with running(tmp_path, fleet) as (service, parts):
            job = await service.submit(toml(1000), "a.toml")
            next_in_line = await service.submit(toml(1), "b.toml")
            await reaches(service, job.job_id, "running")
            await asyncio.sleep(0.15)
            cancelled = await service.cancel(job.job_id, "ada")
            assert (cancelled.state, cancelled.reason) == ("cancelled", "cancelled by ada")
            assert job.job_id in registry(parts).cleared
            assert job.job_id not in fleet.open_jobs
            assert (await reaches(service, next_in_line.job_id)).state == "delivered"
            with pytest.raises(ConfigError, match="is cancelled and cannot be cancelled"):
                await service.cancel(job.job_id)

    asyncio.run(main())


def test_a_queued_job_can_be_cancelled_before_it_runs(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, FakeFleet(names(1), slow)) as (service, _):
            await service.submit(toml(5), "a.toml")
            queued = await service.submit(toml(5), "b.toml")
            assert (await service.cancel(queued.job_id)).state == "cancelled"
            with pytest.raises(ConfigError, match="no job 'nope'"):
                await service.cancel("nope")

    asyncio.run(main())


@pytest.mark.parametrize("error", [StorageError("the registry is full"), RuntimeError("surprise")])
def test_packaging_that_fails_fails_the_job_with_its_reason_and_the_queue_goes_on(
    tmp_path: Path, error: Exception
) -> None:
    async def main() -> None:
        async with running(tmp_path, FakeFleet(names(1))) as (service, parts):
            handover(parts).error = error
            job = await service.submit(toml(1), "a.toml")
            record = await reaches(service, job.job_id)
            assert record.state == "failed"
            assert str(error) in record.reason
            handover(parts).error = None
            again = await service.submit(toml(1), "a.toml")
            assert (await reaches(service, again.job_id)).state == "delivered"

    asyncio.run(main())


def test_a_job_without_quorum_fails_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        fleet = FakeFleet(names(2), lambda device, instruction, model: None)
        text = toml(1, more="[cohort]\nquorum = 2\n[deadlines]\nround_s = 0.05")
        async with running(tmp_path, fleet) as (service, _):
            job = await service.submit(text, "a.toml")
            record = await reaches(service, job.job_id)
            assert record.state == "failed"
            assert "0 updates, its quorum is 2" in record.reason

    asyncio.run(main())


def test_a_stopped_server_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, FakeFleet(names(2), slow)) as (service, _):
            job = await service.submit(toml(8), "a.toml")
            async with asyncio.timeout(60):
                while len(await service.rounds(job.job_id)) < 2:
                    await asyncio.sleep(0.01)
        fleet = FakeFleet(names(2), slow)
        async with running(tmp_path, fleet) as (service, parts):
            assert (await service.get(job.job_id)).state == "running"  # type: ignore[union-attr]
            record = await reaches(service, job.job_id)
            assert record.state == "delivered"
            assert [r.round for r in await service.rounds(job.job_id)] == list(range(1, 9))
            assert min(instruction.round for _, instruction in fleet.sent) >= 3
            untrained = np.arange(100) % 5
            assert np.frombuffer(handover(parts).jobs[0].model, "<f4").tolist() == (untrained + 8).tolist()

    asyncio.run(main())


def test_a_server_stopped_while_packaging_hands_the_job_over_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, FakeFleet(names(2))) as (service, parts):
            handover(parts).gate.clear()
            job = await service.submit(toml(2), "a.toml")
            await reaches(service, job.job_id, "packaging")
        fleet = FakeFleet(names(2))
        async with running(tmp_path, fleet) as (service, parts):
            assert (await reaches(service, job.job_id)).state == "delivered"
            assert fleet.sent == []
            trained = handover(parts).jobs[0]
            expected = expected_model(100, 2, 2)
            assert np.frombuffer(trained.model, "<f4") == pytest.approx(expected)
            assert trained.scores == {"mean": pytest.approx(float(expected.mean()), rel=1e-6)}

    asyncio.run(main())


def test_a_first_model_of_the_wrong_size_fails_the_job(tmp_path: Path) -> None:
    class Broken(PlainBench):
        async def initial(self, recipe: str, parameters: dict[str, Any], seed: int) -> bytes:
            return b"\0" * 10

    async def main() -> None:
        async with running(tmp_path, FakeFleet(names(1)), bench=Broken()) as (service, _):
            job = await service.submit(toml(1), "a.toml")
            record = await reaches(service, job.job_id)
            assert record.state == "failed"
            assert "10 bytes, 100 float32 values take 400" in record.reason

    asyncio.run(main())


def test_a_device_that_joins_while_a_job_runs_is_asked_and_takes_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hedgerow.server.jobs.population._FRESH_S", 0.0)

    async def main() -> None:
        held = Registry(["device-1"])
        async with running(tmp_path, FakeFleet(names(2), slow), registry=held) as (service, _):
            job = await service.submit(toml(6), "a.toml")
            async with asyncio.timeout(60):
                while not await service.rounds(job.job_id):
                    await asyncio.sleep(0.01)
            held.names.append("device-2")
            await reaches(service, job.job_id)
            replied = [r.replied for r in await service.rounds(job.job_id)]
            assert replied[0] == 1
            assert replied[-1] == 2
            assert held.assigned[job.job_id] == {"device-1", "device-2"}

    asyncio.run(main())
