"""Rounds of mode ``central-poisson`` over a real database: what counts, what decides nothing, what is charged and shown."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from tests.support.fake_fleet import Answer, FakeFleet
from tests.support.job_parts import Handover, Registry, make_parts, names

from hedgerow.server.jobs.records import JobRecord, RoundRecord
from hedgerow.server.jobs.run import Parts
from hedgerow.server.jobs.service import JobService
from hedgerow.server.rounds.loop import LoopSettings
from hedgerow.server.strategies import catalogue
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import TrainInstruction
from hedgerow.shared.packing import Vector
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.events import CentralRounds
from hedgerow.shared.privacy.noise import Doubles, SystemRandom

N = 64
FINAL = ("delivered", "failed", "cancelled")


def toml(
    *, rounds: int = 2, z: float = 1.0, clip: float = 1.0, rate: float = 1.0, more: str = "", budget: str = ""
) -> bytes:
    spending = budget or f"noise_multiplier = {z}"
    return (
        f'name = "c"\nrecipe = "vector"\nrounds = {rounds}\nparameters = {{ n = {N} }}\n{more}\n'
        f'[privacy]\nmode = "central-poisson"\n{spending}\ndelta = 1e-3\nclip_norm_l2 = {clip}\n'
        f'[cohort]\nrule = "poisson"\nrate = {rate}\n[deadlines]\nround_s = 5.0\n'
    ).encode()


def constant(value: float) -> Callable[[str, TrainInstruction, Vector], Answer]:
    return lambda _device, _instruction, model: Answer(np.full(model.size, value, np.float32))


def always(answer: Answer | None) -> Callable[[str, TrainInstruction, Vector], Answer | None]:
    return lambda _device, _instruction, _model: answer


class Bed:
    """A job service over a fake fleet, with what its job became."""

    def __init__(self, home: Path, devices: int = 8, **more: Any) -> None:
        self.registry = Registry(names(devices))
        self.fleet = FakeFleet(names(devices), constant(0.5))
        settings = LoopSettings(start_wait_s=0.2, rejoin_wait_s=0.1)
        self.parts: Parts = make_parts(home, self.fleet, registry=self.registry, settings=settings, **more)
        self.service = JobService(self.parts)

    async def run(self, job: bytes) -> JobRecord:
        await self.service.start()
        submitted = await self.service.submit(job, "c.toml")
        return await self.ended(submitted.job_id)

    async def ended(self, job_id: str) -> JobRecord:
        async with asyncio.timeout(30):
            while True:
                record = await self.service.get(job_id)
                assert record is not None
                if record.state in FINAL:
                    return record
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        await self.service.stop()
        await self.fleet.stop()
        assert self.fleet.unreleased == 0

    def rounds(self, record: JobRecord) -> list[RoundRecord]:
        return self.parts.jobs.rounds(record.job_id)

    def models(self) -> list[Vector]:
        handover = self.parts.on_trained
        assert isinstance(handover, Handover)
        return [np.frombuffer(job.model, "<f4") for job in handover.jobs]

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self.parts.jobs._database.transaction() as session:
            return [tuple(row) for row in session.execute(text(sql))]


def over(tmp_path: Path, check: Callable[[Bed], Awaitable[None]], **more: Any) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, **more)
        try:
            await check(bed)
        finally:
            await bed.stop()

    asyncio.run(main())


class Silence(SystemRandom):
    """Draws as the system does, and noise of nothing: to look at sums exactly."""

    def gaussian(self, count: int, sigma: float) -> Doubles:
        assert sigma > 0
        return np.zeros(count)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "SystemRandom", Silence)


def untrained() -> Vector:
    return (np.arange(N) % 5).astype(np.float32)


def test_the_model_moves_by_the_clipped_sum_over_the_constant(tmp_path: Path) -> None:
    """Eight devices of 0.5 each, C = 1: each is clipped to 1 / 8 a value; over q·N = 8 that is 1 / 8, plus noise z·C / 8."""

    async def check(bed: Bed) -> None:
        record = await bed.run(toml(rounds=1, z=0.5))
        moved = bed.models()[0] - untrained()
        sigma = 0.5 / 8
        assert record.state == "delivered", record.reason
        assert abs(float(moved.mean()) - 0.125) < 6 * sigma / math.sqrt(N)
        assert 0.4 * sigma < float(moved.std()) < 1.8 * sigma

    over(tmp_path, check)


@pytest.mark.parametrize("answering", [0, 1, 5, 8])
def test_whoever_does_not_answer_counts_as_zero_and_the_denominator_stays(
    tmp_path: Path, answering: int, quiet: None
) -> None:
    """Devices that send too much, fail, stay silent, send rubbish: the sum is over 8, whatever came."""

    async def check(bed: Bed) -> None:
        faults: list[Any] = [
            Answer(np.full(N, 9.0, "<f4").tobytes()),
            Answer(None, error="trainer failed"),
            Answer(np.full(N, np.nan, "<f4").tobytes()),
            None,
            Answer(b"\x00" * 7),
            Answer(np.full(N, 0.01, np.float32), header={"round": 9}),
            Answer(np.full(N, 0.01, np.float32), header={"n_parameters": 1}),
            None,
        ]
        for index, device in enumerate(names(8)):
            if index >= answering:
                bed.fleet.behaviours[device] = always(faults[index])
        bed.fleet.behaviour = constant(0.01)
        record = await bed.run(toml(rounds=1, z=1.0).replace(b"round_s = 5.0", b"round_s = 0.6"))
        assert record.state == "delivered", record.reason
        (round,) = bed.rounds(record)
        assert round.replied == answering
        assert np.allclose(bed.models()[0] - untrained(), answering * 0.01 / 8, atol=1e-6)

    over(tmp_path, check)


def test_a_round_that_draws_nobody_releases_noise_and_is_charged(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        record = await bed.run(toml(rounds=3, rate=1e-9))
        assert record.state == "delivered", record.reason
        assert [(r.drawn, r.replied) for r in bed.rounds(record)] == [(0, 0)] * 3
        assert bed.fleet.sent == []
        moved = bed.models()[0] - untrained()
        expected = math.sqrt(3) * 1.0 / (8e-9)
        assert 0.5 * expected < float(moved.std()) < 1.5 * expected
        assert bed.ask("select state from privacy_charges") == [("charged",)] * 3

    over(tmp_path, check)


def test_quorum_alerts_and_decides_nothing(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        bed.fleet.behaviour = lambda _d, _i, _m: Answer(None, error="no samples")
        job = toml(rounds=2).replace(b"rate = 1.0", b"rate = 1.0\nquorum = 7")
        record = await bed.run(job)
        assert record.state == "delivered", record.reason
        assert [(r.attempt, r.replied, r.below_quorum) for r in bed.rounds(record)] == [(1, 0, True)] * 2

    over(tmp_path, check)


def test_the_population_is_frozen_when_the_job_begins(tmp_path: Path) -> None:
    """Who joins later is never drawn; who leaves still counts in N, and is still thrown a coin for."""

    async def check(bed: Bed) -> None:
        def joins_and_leaves(device: str, instruction: TrainInstruction, model: Vector) -> Answer:
            if instruction.round == 1:
                bed.registry.names = [*names(7), "device-99"]
                bed.fleet.up.add("device-99")
            return Answer(np.full(model.size, 0.5, np.float32))

        bed.fleet.behaviour = joins_and_leaves
        record = await bed.run(toml(rounds=3))
        cohorts = {tuple(bed.parts.jobs.cohort(record.job_id, n).cohort) for n in (1, 2, 3)}  # type: ignore[union-attr]
        assert cohorts == {tuple(sorted(names(8)))}
        assert "device-99" not in {device for device, _ in bed.fleet.sent}
        assert bed.registry.assigned[record.job_id] == set(names(8))
        account = bed.parts.ledger.account(record.job_id)
        assert account is not None
        assert (account.plan.population, account.plan.denominator) == (8, 8.0)

    over(tmp_path, check)


def test_cohorts_differ_from_round_to_round_as_coins_do(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        record = await bed.run(toml(rounds=12, rate=0.5))
        sizes = [r.drawn for r in bed.rounds(record)]
        assert len({tuple(bed.parts.jobs.cohort(record.job_id, n).cohort) for n in range(1, 13)}) > 6  # type: ignore[union-attr]
        # 240 coins of one half: mean 120, σ 7.7.
        assert abs(sum(sizes) - 120) < 6 * 7.75

    over(tmp_path, check, devices=20)


def test_epsilon_grows_round_by_round_and_ends_at_what_was_asked(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        record = await bed.run(toml(rounds=5, rate=0.5, budget="epsilon = 4.0"))
        curve = [r.epsilon for r in bed.rounds(record)]
        account = bed.parts.ledger.account(record.job_id)
        assert account is not None
        z = account.plan.noise_multiplier
        assert curve == pytest.approx(
            [epsilon([CentralRounds(0.5, z, n)], 1e-3) for n in range(1, 6)], rel=1e-3
        )
        assert curve == sorted(curve, key=lambda e: e or 0.0)
        assert 3.9 < (curve[-1] or 0.0) <= 4.0
        assert (record.epsilon, record.delta) == (curve[-1], 1e-3)
        assert bed.ask("select round, epsilon from privacy_charges order by round") == list(
            enumerate(curve, start=1)
        )

    over(tmp_path, check)


def test_what_a_device_adds_to_its_update_is_not_looked_at(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        told = {
            "n_samples": 7,
            "metrics": {"loss": 0.5},
            "epsilon": 99.0,
            "delta": 0.5,
            "ledger_head": "f" * 64,
        }
        bed.fleet.behaviour = lambda _d, _i, model: Answer(np.full(model.size, 0.1, np.float32), header=told)
        record = await bed.run(toml(rounds=2))
        assert [(r.replied, r.metrics) for r in bed.rounds(record)] == [(8, {})] * 2
        assert bed.ask("select distinct n_samples, ledger_head, epsilon from contributions") == [
            (None, None, None)
        ]
        assert bed.ask("select count(*) from ledger_heads") == [(0,)]
        assert record.epsilon is not None
        assert record.epsilon < 99

    over(tmp_path, check)


def test_a_device_counts_once_however_often_it_answers(tmp_path: Path, quiet: None) -> None:
    async def check(bed: Bed) -> None:
        bed.fleet.behaviours["device-1"] = lambda _d, _i, model: Answer(
            np.full(model.size, 0.01, np.float32), copies=5
        )
        bed.fleet.behaviour = lambda _d, _i, model: Answer(np.zeros(model.size, np.float32), delay_s=0.1)
        record = await bed.run(toml(rounds=1))
        (round,) = bed.rounds(record)
        assert round.replied == 8
        assert round.reasons == {"duplicate": 4}
        assert np.allclose(bed.models()[0] - untrained(), 0.01 / 8, atol=1e-6)

    over(tmp_path, check)


def test_a_job_over_what_earlier_jobs_left_is_refused_when_it_is_submitted(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        asked = toml(rounds=2, budget="epsilon = 4.0")
        assert (await bed.run(asked)).state == "delivered"
        with pytest.raises(ConfigError, match=r"^c\.toml: privacy\.epsilon: .*is spent") as refused:
            await bed.service.submit(asked, "c.toml")
        assert "4" in str(refused.value)
        assert len(await bed.service.recent()) == 1

    over(tmp_path, check)


def test_a_job_over_the_devices_budget_is_refused_with_the_total_and_the_remedy(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        with pytest.raises(ConfigError, match=r"over their budget of 10") as refused:
            await bed.service.submit(toml(rounds=20, z=1.5), "c.toml")
        assert "device_budget_epsilon" in str(refused.value)
        assert await bed.service.recent() == []

    over(tmp_path, check)


def test_jobs_queued_together_cannot_both_spend_the_same_budget(tmp_path: Path) -> None:
    """Both pass when submitted, since neither has begun; the second is refused when it would begin."""

    async def check(bed: Bed) -> None:
        asked = toml(rounds=2, budget="epsilon = 4.0")
        await bed.service.start()
        bed.fleet.behaviour = lambda _d, _i, model: Answer(np.zeros(model.size, np.float32), delay_s=0.3)
        blocker = await bed.service.submit(toml(rounds=1, z=8.0), "c.toml")
        queued = [await bed.service.submit(asked, "c.toml") for _ in range(2)]
        states = [await bed.ended(job.job_id) for job in [blocker, *queued]]
        assert [record.state for record in states] == ["delivered", "delivered", "failed"]
        assert "is spent" in states[2].reason
        assert bed.ask(f"select count(*) from rounds where job_id = '{queued[1].job_id}'") == [(0,)]

    over(tmp_path, check)


def test_a_later_job_over_the_same_devices_starts_from_what_was_spent(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        first = await bed.run(toml(rounds=2, z=3.0))
        later = await bed.run(toml(rounds=2, z=3.0))
        one, two = bed.rounds(first), bed.rounds(later)
        assert (two[0].epsilon or 0.0) > (one[1].epsilon or 0.0)
        handover = bed.parts.on_trained
        assert isinstance(handover, Handover)
        central = handover.jobs[1].central
        assert central is not None
        assert central.earlier == (CentralRounds(1.0, 3.0, 2),)
        assert central.ledger_head == bed.parts.ledger.verify(later.job_id) != ""
        assert handover.jobs[1].epsilon == two[1].epsilon

    over(tmp_path, check)


def test_a_cancelled_job_pays_for_its_rounds_and_no_more(tmp_path: Path) -> None:
    async def check(bed: Bed) -> None:
        bed.fleet.behaviour = lambda _d, i, model: (
            Answer(np.zeros(model.size, np.float32)) if i.round < 3 else Answer(delay_s=60.0)
        )
        await bed.service.start()
        job = await bed.service.submit(toml(rounds=50, z=4.0), "c.toml")
        async with asyncio.timeout(20):
            while (await bed.service.get(job.job_id)).rounds_done < 2:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
        await bed.service.cancel(job.job_id)
        account = bed.parts.ledger.account(job.job_id)
        assert account is not None
        assert account.committed() == (CentralRounds(1.0, 4.0, 3),)
        assert bed.ask("select round, state from privacy_charges order by round") == [
            (1, "charged"),
            (2, "charged"),
            (3, "reserved"),
        ]

    over(tmp_path, check)


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedyogi"])
def test_a_strategy_with_memory_goes_on_over_a_stop(tmp_path: Path, strategy: str) -> None:
    async def first() -> str:
        bed = Bed(tmp_path)
        bed.fleet.behaviour = lambda _d, i, model: (
            Answer(np.full(model.size, 0.1, np.float32)) if i.round < 3 else None
        )
        await bed.service.start()
        job = await bed.service.submit(
            toml(rounds=4, z=1.0).replace(b"[cohort]", f'[strategy]\nname = "{strategy}"\n[cohort]'.encode()),
            "c.toml",
        )
        async with asyncio.timeout(20):
            while (await bed.service.get(job.job_id)).rounds_done < 2:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
        await bed.stop()
        return job.job_id

    async def second(job_id: str) -> None:
        bed = Bed(tmp_path)
        before = bed.parts.rounds.load(job_id)
        vectors = 1 if strategy == "fedavgm" else 2
        assert len(before.state) == 8 + 4 * N * vectors
        assert np.isfinite(np.frombuffer(before.state[8:], "<f4")).all()
        planned = bed.ask("select round, cohort from rounds where state = 'planned'")
        await bed.service.start()
        record = await bed.ended(job_id)
        assert record.state == "delivered", record.reason
        assert bed.ask("select round, cohort from rounds where round = 3") == planned
        assert bed.ask("select round, state from privacy_charges order by round") == [
            (n, "charged") for n in range(1, 5)
        ]
        await bed.stop()

    asyncio.run(second(asyncio.run(first())))
