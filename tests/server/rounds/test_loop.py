"""The round loop against a fleet whose devices are slow, dead, broken or hostile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.support.fake_fleet import Answer, FakeFleet, make_reply, steady
from tests.support.job_parts import make_parts, names

from hedgerow.server.jobs.run import Parts
from hedgerow.server.rounds.book import Book
from hedgerow.server.rounds.loop import LoopSettings, QuorumError, RoundLoop, Task
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import RoundResult
from hedgerow.server.strategies.catalogue import make_aggregator
from hedgerow.shared.job import (
    CohortSpec,
    DeadlineSpec,
    Job,
    PrivacySpec,
    StrategySpec,
    TrainInstruction,
)
from hedgerow.shared.packing import Vector

NONE = PrivacySpec("none")
EXAMPLE = PrivacySpec("example", epsilon=8.0, delta=1e-5)
FAST = LoopSettings(start_wait_s=0.05, rejoin_wait_s=1.0)
NEVER = 10_000.0
"""A deadline that a test would not live to see: a round that waits for it hangs, and the test fails."""


class Heard:
    """Remembers what the loop tells."""

    def __init__(self) -> None:
        self.results: list[RoundResult] = []
        self.rejections: list[tuple[str, str]] = []
        self.regressions: list[str] = []
        self.aborts: list[Plan] = []
        self.on_commit: Any = None

    def progress(self, round: int, book: Book) -> None: ...

    def rejected(self, round: int, device: str, reason: str, detail: str) -> None:
        self.rejections.append((device, reason))

    def regressed(self, round: int, device: str, detail: str) -> None:
        self.regressions.append(device)

    def aborted(self, plan: Plan, counted: int, why: str) -> None:
        self.aborts.append(plan)

    def committed(self, round: int, result: RoundResult, model: Vector, model_sha256: str) -> None:
        self.results.append(result)
        if self.on_commit:
            self.on_commit(round)


class Bed:
    """One job over a fake fleet and a real database."""

    def __init__(
        self, home: Path, fleet: FakeFleet, job: Job, n: int = 20, settings: LoopSettings = FAST
    ) -> None:
        self.fleet = fleet
        self.job = job
        self.heard = Heard()
        self.parts: Parts = make_parts(home, fleet)
        self.parts.jobs.add("j", job, "a" * 64, n, "")
        self.untrained = (np.arange(n) % 3).astype(np.float32)
        aggregator = make_aggregator(job, n)
        self.parts.rounds.begin("j", self.untrained, aggregator.initial_state())
        task = Task("j", job, "a" * 64, n, self.population)
        self.loop = RoundLoop(task, fleet, self.parts.rounds, aggregator, self.heard, settings)

    async def population(self) -> list[str]:
        return sorted(self.fleet.names)

    async def run(self) -> Vector:
        try:
            async with asyncio.timeout(60):
                return await self.loop.run()
        finally:
            await self.fleet.stop()
            assert self.fleet.unreleased == 0

    def outcomes(self, round: int) -> dict[str, str]:
        record = self.parts.jobs.cohort("j", round)
        assert record is not None
        return {device: reason or outcome for _, device, outcome, reason in record.outcomes}


def job(privacy: PrivacySpec = NONE, *, rounds: int = 1, deadline_s: float = 5.0, **more: Any) -> Job:
    return Job(
        name="t", recipe="vector", privacy=privacy, rounds=rounds, deadlines=DeadlineSpec(deadline_s), **more
    )


def silent(_device: str, _instruction: TrainInstruction, _model: Vector) -> None:
    return None


def answers(delta: Any = None, **more: Any) -> Any:
    def behave(device: str, instruction: TrainInstruction, model: Vector) -> Answer:
        own = steady(device, instruction, model).delta if delta is None else delta
        return Answer(own, **more)

    return behave


def test_the_model_moves_by_the_mean_of_the_updates(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job())
        ones = np.ones(20, np.float32)
        bed.fleet.behaviours = {"device-1": answers(ones), "device-2": answers(4 * ones)}
        model = await bed.run()
        assert model.tolist() == (bed.untrained + 2.5).tolist()

    asyncio.run(main())


def test_weighting_by_samples_counts_each_update_as_often(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(strategy=StrategySpec(weighting="samples")))
        ones = np.ones(20, np.float32)
        bed.fleet.behaviours = {
            "device-1": answers(0 * ones, header={"n_samples": 30}),
            "device-2": answers(4 * ones, header={"n_samples": 10}),
        }
        model = await bed.run()
        assert model.tolist() == (bed.untrained + 1).tolist()

    asyncio.run(main())


@pytest.mark.parametrize("n", [20, 40_000], ids=["inline", "by-hash"])
def test_small_models_travel_inline_and_large_ones_by_hash(tmp_path: Path, n: int) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(rounds=3), n)
        await bed.run()
        assert [bool(i.model) for _, i in bed.fleet.sent] == [n == 20] * 6
        assert bool(bed.fleet.models) == (n != 20)

    asyncio.run(main())


def test_a_model_without_parameters_goes_round(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(rounds=3), 0)
        assert (await bed.run()).size == 0
        assert [r.replied for r in bed.heard.results] == [2, 2, 2]

    asyncio.run(main())


BAD_UPDATES: dict[str, tuple[Any, str]] = {
    "nan": (answers(np.array([np.nan] + 19 * [0], "<f4").tobytes()), "non-finite"),
    "infinity": (answers(np.array(19 * [0] + [np.inf], "<f4").tobytes()), "non-finite"),
    "too short": (answers(bytes(76)), "wrong-size"),
    "too long": (answers(bytes(84)), "wrong-size"),
    "another shape": (answers(header={"n_parameters": 21}), "wrong-size"),
    "another packing": (answers(header={"packing": "int8"}), "malformed"),
    "a past round": (answers(header={"round": 0}), "stale"),
    "another exchange": (answers(header={"exchange": 1}), "stale"),
    "another job": (answers(header={"job_id": "k"}), "stale"),
    "astronomic": (answers(np.full(20, 3e38, np.float32)), "over-norm"),
}


@pytest.mark.parametrize("case", BAD_UPDATES)
@pytest.mark.parametrize("privacy", [NONE, EXAMPLE], ids=["none", "example"])
def test_a_bad_update_is_refused_with_its_reason_and_the_round_goes_on(
    tmp_path: Path, case: str, privacy: PrivacySpec
) -> None:
    behaviour, reason = BAD_UPDATES[case]

    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(3)), job(privacy))
        ones = np.ones(20, np.float32)
        bed.fleet.behaviour = answers(ones)
        bed.fleet.behaviours["device-2"] = behaviour
        model = await bed.run()
        result = bed.heard.results[0]
        assert model.tolist() == (bed.untrained + 1).tolist()
        assert (result.replied, result.rejected, result.dropped) == (2, 1, 0)
        assert result.reasons == {reason: 1}
        assert bed.heard.rejections == [("device-2", reason)]
        assert bed.outcomes(1)["device-2"] == reason

    asyncio.run(main())


def test_an_update_over_the_norm_asked_for_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        strategy = StrategySpec(options={"max_update_norm_l2": 5.0})
        bed = Bed(tmp_path, FakeFleet(names(2)), job(strategy=strategy))
        ones = np.ones(20, np.float32)
        bed.fleet.behaviours = {"device-1": answers(ones), "device-2": answers(2 * ones)}
        assert (await bed.run()).tolist() == (bed.untrained + 1).tolist()
        assert bed.heard.results[0].reasons == {"over-norm": 1}

    asyncio.run(main())


def test_a_device_counts_once_however_often_it_answers(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job())
        ones = np.ones(20, np.float32)
        bed.fleet.behaviours = {
            "device-1": answers(ones, copies=3),
            "device-2": answers(3 * ones, delay_s=0.05),
        }
        assert (await bed.run()).tolist() == (bed.untrained + 2).tolist()
        assert bed.heard.results[0].reasons == {"duplicate": 2}

    asyncio.run(main())


def test_a_reply_from_outside_the_cohort_is_unexpected(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job())
        bed.fleet.behaviour = answers(np.ones(20, np.float32), delay_s=0.05)

        def intrude(device: str, instruction: TrainInstruction, model: Vector) -> Answer:
            forged = make_reply("intruder-9", "m1", instruction, Answer(100 * model))
            bed.fleet.inject(forged)
            return Answer(np.ones(20, np.float32), delay_s=0.05)

        bed.fleet.behaviours["device-1"] = intrude
        assert (await bed.run()).tolist() == (bed.untrained + 1).tolist()
        assert bed.heard.results[0].reasons == {"unexpected": 1}

    asyncio.run(main())


def test_a_late_reply_is_refused_in_the_next_round_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(rounds=2, deadline_s=2.0))
        bed.fleet.deliver_late = True

        def late(device: str, instruction: TrainInstruction, model: Vector) -> Answer:
            delay_s = 2.5 if instruction.round == 1 else 1.0
            return Answer(np.full(20, 7, np.float32), delay_s=delay_s)

        bed.fleet.behaviour = answers(np.ones(20, np.float32))
        bed.fleet.behaviours["device-2"] = late
        model = await bed.run()
        first, second = bed.heard.results
        assert (first.replied, first.dropped) == (1, 1)
        assert second.reasons == {"stale": 1}
        assert second.replied == 2
        assert model.tolist() == (bed.untrained + 1 + 4).tolist()

    asyncio.run(main())


def test_the_deadline_ends_a_round_that_a_silent_device_holds_up(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(3)), job(EXAMPLE, deadline_s=1.5))
        bed.fleet.behaviours["device-3"] = silent
        await bed.run()
        result = bed.heard.results[0]
        assert result.duration_s >= 1.5
        assert (result.replied, result.dropped) == (2, 1)
        assert bed.outcomes(1)["device-3"] == "missing"
        assert len(bed.fleet.abandoned) == 1

    asyncio.run(main())


@pytest.mark.parametrize("answering", [0, 1, 2, 5])
def test_with_privacy_a_round_releases_once_whatever_the_number_of_replies(
    tmp_path: Path, answering: int
) -> None:
    async def main() -> None:
        bed = Bed(
            tmp_path, FakeFleet(names(5)), job(EXAMPLE, rounds=2, deadline_s=1.5, cohort=CohortSpec(quorum=5))
        )
        bed.fleet.behaviour = silent
        for device in names(answering):
            bed.fleet.behaviours[device] = answers(np.ones(20, np.float32))
        model = await bed.run()
        assert [r.replied for r in bed.heard.results] == [answering, answering]
        assert [r.below_quorum for r in bed.heard.results] == [answering < 5] * 2
        assert model.tolist() == (bed.untrained + (2 if answering else 0)).tolist()
        assert not bed.heard.aborts
        assert max(i.round for _, i in bed.fleet.sent) == 2
        assert len(bed.fleet.sent) == 10, "nobody is asked twice in a round"

    asyncio.run(main())


def test_without_privacy_a_round_below_quorum_is_tried_again_and_then_fails_the_job(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(3)), job(deadline_s=1.0, cohort=CohortSpec(quorum=2)))
        bed.fleet.behaviours = {"device-2": silent, "device-3": silent}
        with pytest.raises(QuorumError, match=r"round 1 .* 3 attempts: 1 updates, its quorum is 2"):
            await bed.run()
        assert [plan.attempt for plan in bed.heard.aborts] == [1, 2, 3]
        assert bed.parts.rounds.load("j").rounds_done == 0
        assert not bed.heard.results

    asyncio.run(main())


def test_an_aborted_round_leaves_nothing_in_the_model(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(deadline_s=2.0, cohort=CohortSpec(quorum=2)))
        asked = []

        def second_time(device: str, instruction: TrainInstruction, model: Vector) -> Answer | None:
            asked.append(instruction)
            return Answer(np.ones(20, np.float32)) if len(asked) > 1 else None

        bed.fleet.behaviour = answers(np.ones(20, np.float32))
        bed.fleet.behaviours["device-2"] = second_time
        assert (await bed.run()).tolist() == (bed.untrained + 1).tolist()
        assert len(bed.heard.aborts) == 1

    asyncio.run(main())


def test_a_declined_instruction_costs_only_its_device(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(EXAMPLE))
        bed.fleet.behaviours["device-1"] = answers(b"", error="budget spent")
        await bed.run()
        assert (bed.heard.results[0].replied, bed.heard.results[0].dropped) == (1, 1)
        assert bed.outcomes(1)["device-1"] == "budget spent"

    asyncio.run(main())


def test_a_trainer_killed_mid_round_costs_its_device_one_round_of_milliseconds(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(3)), job(EXAMPLE, rounds=30, deadline_s=NEVER))
        events: list[asyncio.Task[None]] = []

        async def restart() -> None:
            bed.fleet.die("device-2")
            await asyncio.sleep(0.15)
            bed.fleet.come_back("device-2")

        def dying(device: str, instruction: TrainInstruction, model: Vector) -> Answer | None:
            if instruction.round == 5 and not events:
                events.append(asyncio.get_running_loop().create_task(restart()))
                return None
            return steady(device, instruction, model)

        bed.fleet.behaviours["device-2"] = dying
        await bed.run()
        assert [r.replied for r in bed.heard.results] == [3] * 4 + [2] + [3] * 25
        assert bed.outcomes(5)["device-2"] == "the trainer died"

    asyncio.run(main())


def test_a_device_gone_for_good_is_waited_for_once_not_in_every_round(tmp_path: Path) -> None:
    async def main() -> None:
        patient = LoopSettings(start_wait_s=0.05, rejoin_wait_s=2.5)
        asked = job(EXAMPLE, rounds=20, deadline_s=NEVER)
        bed = Bed(tmp_path, FakeFleet(names(3)), asked, settings=patient)
        bed.heard.on_commit = lambda round: bed.fleet.die("device-3") if round == 4 else None
        await bed.run()
        waited = [r.round for r in bed.parts.jobs.rounds("j") if r.duration_s >= 2.4]
        assert [r.replied for r in bed.heard.results] == [3] * 4 + [2] * 16
        assert waited == [5]

    asyncio.run(main())


def test_a_trainer_that_vanishes_without_a_word_does_not_hold_its_round(tmp_path: Path) -> None:
    async def main() -> None:
        settings = LoopSettings(start_wait_s=0.05, rejoin_wait_s=NEVER)
        bed = Bed(tmp_path, FakeFleet(names(2)), job(EXAMPLE, deadline_s=NEVER), settings=settings)

        def vanish(device: str, instruction: TrainInstruction, model: Vector) -> None:
            bed.fleet.up.discard(device)

        bed.fleet.behaviours["device-2"] = vanish
        await bed.run()
        assert bed.heard.results[0].replied == 1

    asyncio.run(main())


def test_a_device_that_connects_during_the_round_still_takes_part(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(3)), job(EXAMPLE))
        bed.fleet.up.discard("device-3")
        bed.fleet.behaviour = answers(np.ones(20, np.float32), delay_s=0.3)
        asyncio.get_running_loop().call_later(0.15, bed.fleet.come_back, "device-3")
        await bed.run()
        assert bed.heard.results[0].replied == 3

    asyncio.run(main())


def test_a_device_that_the_link_cannot_address_yet_is_asked_once_it_is_online(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(EXAMPLE))
        bed.fleet.unreachable.add("device-2")
        asyncio.get_running_loop().call_later(0.2, bed.fleet.unreachable.clear)
        await bed.run()
        assert bed.heard.results[0].replied == 2

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["before it is asked", "while it is unreachable", "after it was asked"])
def test_a_device_that_is_shut_out_holds_no_round_it_was_drawn_into(tmp_path: Path, moment: str) -> None:
    """Neither the deadline nor the time to rejoin would end this round in a test's life."""

    async def main() -> None:
        settings = LoopSettings(start_wait_s=0.05, rejoin_wait_s=NEVER)
        bed = Bed(tmp_path, FakeFleet(names(3)), job(EXAMPLE, deadline_s=NEVER), settings=settings)

        async def drawn_and_then(device: str) -> list[str]:
            if moment == "before it is asked":
                bed.fleet.leave(device)
            return names(3)

        def asked(device: str, instruction: TrainInstruction, model: Vector) -> None:
            bed.fleet.leave(device)

        if moment == "while it is unreachable":
            bed.fleet.unreachable.add("device-2")
            bed.fleet.up.discard("device-2")
            asyncio.get_running_loop().call_later(0.2, bed.fleet.leave, "device-2")
        elif moment == "after it was asked":
            bed.fleet.behaviours["device-2"] = asked
        bed.loop._task = bed.loop._task._replace(population=lambda: drawn_and_then("device-2"))
        await bed.run()
        assert (bed.heard.results[0].replied, bed.heard.results[0].dropped) == (2, 1)
        assert bed.heard.results[0].reasons == {}, "nothing of it was counted or refused twice"
        reason = "the trainer died" if moment == "after it was asked" else "left the fleet"
        assert bed.outcomes(1)["device-2"] == reason

    asyncio.run(main())


def test_no_round_burns_while_the_whole_fleet_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        fleet = FakeFleet(names(2), online=False)
        bed = Bed(tmp_path, fleet, job(EXAMPLE, rounds=3))
        running = asyncio.create_task(bed.run())
        await asyncio.sleep(0.8)
        assert not bed.heard.results
        for device in names(2):
            fleet.come_back(device)
        await running
        assert [r.replied for r in bed.heard.results] == [2, 2, 2]

    asyncio.run(main())


def test_with_privacy_no_count_and_no_loss_of_a_device_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(EXAMPLE))
        bed.fleet.behaviour = answers(header={"n_samples": 31337, "metrics": {"loss": 0.271828}})
        await bed.run()
        assert bed.heard.results[0].metrics == {}
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("hedgerow.db*"))
        assert b"271828" not in stored
        assert bed.parts.jobs.rounds("j")[0].metrics == {}
        with bed.parts.jobs._database.engine.connect() as connection:
            kept = connection.exec_driver_sql("select n_samples from contributions").fetchall()
        assert kept == [(None,), (None,)]

    asyncio.run(main())


def test_without_privacy_mean_metrics_are_kept(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job())
        bed.fleet.behaviours = {
            "device-1": answers(header={"n_samples": 3, "metrics": {"loss": 1.0, "odd": float("nan")}}),
            "device-2": answers(header={"n_samples": 5, "metrics": {"loss": 2.0}}),
        }
        await bed.run()
        assert bed.parts.jobs.rounds("j")[0].metrics == {"loss": 1.5}

    asyncio.run(main())


BACK: dict[str, dict[str, Any]] = {
    "a restored backup": {"ledger_head": "f" * 64, "ledger_length": 3},
    "the ledger of the last round": {"ledger_length": 4},
    "less ε than before": {"epsilon": 0.1},
}


@pytest.mark.parametrize("case", BACK)
def test_a_ledger_that_goes_back_is_told_and_its_updates_count_no_more(tmp_path: Path, case: str) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(EXAMPLE, rounds=3))

        def restored(device: str, instruction: TrainInstruction, model: Vector) -> Answer:
            return Answer(np.ones(20, np.float32), header=BACK[case] if instruction.round == 3 else {})

        bed.fleet.behaviours["device-2"] = restored
        await bed.run()
        assert bed.heard.regressions == ["device-2"]
        assert [r.replied for r in bed.heard.results] == [2, 2, 1]
        assert bed.heard.results[2].reasons == {"ledger-regressed": 1}
        heads = bed.parts.rounds.load("j").heads
        assert (heads["device-2"].round, heads["device-2"].length) == (2, 4)
        assert (heads["device-1"].round, heads["device-1"].length) == (3, 6)

    asyncio.run(main())


def test_the_epsilon_of_a_round_is_the_largest_claimed(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(3)), job(EXAMPLE))
        bed.fleet.behaviours["device-2"] = answers(header={"epsilon": 6.5})
        await bed.run()
        assert bed.heard.results[0].epsilon == 6.5
        record = bed.parts.jobs.get("j")
        assert record is not None
        assert (record.epsilon, record.delta) == (6.5, 1e-5)

    asyncio.run(main())


def test_the_curve_of_epsilon_grows_also_where_the_device_that_spent_most_is_not_drawn_again(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(EXAMPLE, rounds=4))
        spends = answers(header={"epsilon": 2.0})
        bed.fleet.behaviours["device-2"] = lambda device, asked, model: (
            spends(device, asked, model) if asked.round == 1 else Answer(b"", error="budget")
        )
        await bed.run()
        assert [r.epsilon for r in bed.parts.jobs.rounds("j")] == [2.0, 2.0, 2.0, 2.0]
        bed.fleet.behaviours.clear()

    asyncio.run(main())


def test_the_epsilon_of_each_round_is_kept_as_it_grows(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(2)), job(EXAMPLE, rounds=4))
        await bed.run()
        assert [r.epsilon for r in bed.parts.jobs.rounds("j")] == [0.25, 0.5, 0.75, 1.0]

    asyncio.run(main())


@pytest.mark.parametrize("strategy", ["fedavg", "flower:FedAdam", "flower:FedAvgM"])
def test_a_job_stopped_between_rounds_continues_to_the_same_model(tmp_path: Path, strategy: str) -> None:
    options = {"server_momentum": 0.5} if strategy.endswith("M") else {}
    asked = job(rounds=5, strategy=StrategySpec(name=strategy, options=options))

    async def whole() -> Vector:
        (tmp_path / "a").mkdir()
        return await Bed(tmp_path / "a", FakeFleet(names(3)), asked).run()

    async def halves() -> Vector:
        (tmp_path / "b").mkdir()
        bed = Bed(tmp_path / "b", FakeFleet(names(3)), asked)
        running = asyncio.create_task(bed.run())
        bed.heard.on_commit = lambda round: running.cancel() if round == 2 else None
        with pytest.raises(asyncio.CancelledError):
            await running
        bed.fleet = FakeFleet(names(3))
        again = RoundLoop(
            bed.loop._task, bed.fleet, bed.parts.rounds, make_aggregator(asked, 20), bed.heard, FAST
        )
        assert bed.parts.rounds.load("j").rounds_done == 2
        bed.loop, bed.heard.on_commit = again, None
        return await bed.run()

    assert asyncio.run(whole()).tolist() == asyncio.run(halves()).tolist()


def test_instructions_carry_what_a_device_needs(tmp_path: Path) -> None:
    async def main() -> None:
        bed = Bed(tmp_path, FakeFleet(names(1)), job(EXAMPLE, parameters={"n": 20}))
        await bed.run()
        device, instruction = bed.fleet.sent[0]
        assert device == "device-1"
        assert (
            msgspec.msgpack.decode(msgspec.msgpack.encode(instruction), type=TrainInstruction) == instruction
        )
        assert (instruction.job_id, instruction.round, instruction.exchange) == ("j", 1, 0)
        assert instruction.privacy == EXAMPLE
        assert 0 < instruction.deadline_s <= 5.0
        assert instruction.recipe_hash == "a" * 64

    asyncio.run(main())
