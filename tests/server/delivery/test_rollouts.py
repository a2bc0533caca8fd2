"""A rollout over real tables and a real repository: orders go out, reports come in, a way back exists."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.delivery import Backend

from hedgerow.server.delivery.metadata import custom_of
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.delivery.upkeep import Upkeep, sleep_s
from hedgerow.server.fleet.desired import DesiredStates
from hedgerow.server.registry import ModelNotFoundError, RegistryConflictError
from hedgerow.server.store.database import utc_now
from hedgerow.shared.messages import BundleReport, BundleTarget, ReportedState


class Desired:
    """Remembers what each device was told last."""

    def __init__(self) -> None:
        self.told: dict[str, BundleTarget] = {}
        self.calls = 0
        self.broken = False

    def set_bundle(self, devices: Sequence[str], target: BundleTarget) -> None:
        if self.broken:
            raise RuntimeError("the process dies here")
        self.calls += 1
        self.told |= dict.fromkeys(devices, target)


class Fleet:
    """A backend with rollouts to three devices."""

    def __init__(self, home: Path) -> None:
        self.backend = Backend(home)
        self.desired = Desired()
        self.devices = ["dev-1", "dev-2", "dev-3"]
        self.moved = timedelta()
        self.rollouts = Rollouts(
            self.backend.database,
            self.backend.bus,
            registry=self.backend.registry,
            repository=self.backend.repository,
            desired=self.desired,
            active_devices=lambda: self.devices,
            now=lambda: utc_now() + self.moved,
        )

    def say(self, device: str, state: Any, version: int) -> None:
        sha = self.backend.registry.get("pump", version).manifest_sha256
        self.rollouts.on_reported(device, ReportedState(1, (BundleReport("pump", version, sha, state),)))

    def all_serve(self, version: int) -> None:
        for device in self.devices:
            self.say(device, "serving", version)

    def state(self) -> str:
        current = self.rollouts.current("pump")
        assert current is not None
        return current.state


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    made.backend.release()
    made.backend.release()
    yield made
    made.backend.close()


def test_every_device_is_told_and_awaited(fleet: Fleet) -> None:
    rollout = fleet.rollouts.start("pump", 1)

    assert rollout.devices == {"pending": 3}
    assert set(fleet.desired.told) == set(fleet.devices)
    assert fleet.desired.told["dev-2"] == BundleTarget("pump", 1, rollout.manifest_sha256)
    assert fleet.backend.registry.aliases("pump") == {"champion": 1}


def test_a_rollout_is_done_when_all_devices_report_it_serving(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    for device in fleet.devices[:2]:
        fleet.say(device, "serving", 1)
    fleet.say("dev-3", "verified", 1)
    assert fleet.state() == "running"

    fleet.say("dev-3", "serving", 1)
    assert fleet.state() == "done"


def test_a_report_of_an_older_version_is_no_success(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    fleet.rollouts.start("pump", 2)
    fleet.all_serve(1)

    assert fleet.state() == "running"


def test_a_newer_rollout_supersedes_the_one_in_force(fleet: Fleet) -> None:
    first = fleet.rollouts.start("pump", 1)
    fleet.rollouts.start("pump", 2)

    assert fleet.rollouts.get(first.id).state == "superseded"
    assert [rollout.version for rollout in fleet.rollouts.in_force()] == [2]
    assert fleet.backend.registry.aliases("pump") == {"champion": 2, "previous": 1}


def test_starting_what_is_in_force_starts_nothing_new(fleet: Fleet) -> None:
    first = fleet.rollouts.start("pump", 1)

    assert fleet.rollouts.start("pump", 1).id == first.id
    assert len(fleet.rollouts.list_rollouts()) == 1


def test_an_older_version_needs_the_word_rollback(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 2)

    with pytest.raises(RegistryConflictError, match="use rollback"):
        fleet.rollouts.start("pump", 1)


def test_an_unknown_version_is_told_so(fleet: Fleet) -> None:
    with pytest.raises(ModelNotFoundError, match="no version 9"):
        fleet.rollouts.start("pump", 9)
    assert fleet.desired.told == {}


def test_going_back_exchanges_the_aliases_and_is_signed(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    fleet.rollouts.start("pump", 2)
    back = fleet.rollouts.rollback("pump")

    assert (back.version, back.kind) == (1, "rollback")
    assert fleet.backend.registry.aliases("pump") == {"champion": 1, "previous": 2}
    assert {target.rollback_ok for target in fleet.desired.told.values()} == {True}
    listed = fleet.backend.repository.state().targets.targets
    assert custom_of(listed["bundles/pump/1/manifest.json"])["rollback_ok"] is True
    assert "rollback_ok" not in custom_of(listed["bundles/pump/2/manifest.json"])
    fleet.all_serve(1)
    assert fleet.state() == "done"


def test_going_back_twice_is_where_it_was(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    fleet.rollouts.start("pump", 2)
    fleet.rollouts.rollback("pump")

    assert fleet.rollouts.rollback("pump").version == 2
    assert fleet.backend.registry.aliases("pump") == {"champion": 2, "previous": 1}


def test_after_going_back_a_newer_version_goes_out_as_usual(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    fleet.rollouts.start("pump", 2)
    fleet.rollouts.rollback("pump")
    fleet.backend.release()

    assert fleet.rollouts.start("pump", 3).kind == "rollout"
    assert not fleet.desired.told["dev-1"].rollback_ok


def test_without_a_previous_version_nobody_is_told_anything(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    calls = fleet.desired.calls

    with pytest.raises(RegistryConflictError, match="no previous version"):
        fleet.rollouts.rollback("pump")
    assert fleet.desired.calls == calls


def test_a_yanked_version_is_no_way_back(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    fleet.rollouts.start("pump", 2)
    fleet.rollouts.yank("pump", 1, "wrong labels")

    with pytest.raises(RegistryConflictError, match="wrong labels"):
        fleet.rollouts.rollback("pump")
    assert not fleet.backend.repository.is_published("pump", 1)


def test_a_silent_device_times_out_and_counts_when_it_comes_back(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    for device in fleet.devices[:2]:
        fleet.say(device, "serving", 1)
    fleet.moved = timedelta(hours=2)

    assert fleet.rollouts.expire_due() == 1
    assert fleet.state() == "failed"
    fleet.say("dev-3", "serving", 1)
    assert fleet.state() == "done"


def test_a_device_that_joins_later_gets_what_is_in_force(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    fleet.all_serve(1)
    fleet.rollouts.on_joined("dev-9")

    assert fleet.desired.told["dev-9"].version == 1
    assert fleet.state() == "running"
    fleet.say("dev-9", "serving", 1)
    assert fleet.state() == "done"


def test_a_device_that_is_removed_is_no_longer_awaited(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    fleet.say("dev-1", "serving", 1)
    fleet.say("dev-2", "serving", 1)
    fleet.rollouts.on_removed("dev-3")
    fleet.rollouts.on_removed("never-seen")

    assert fleet.state() == "done"


def test_reports_of_strangers_change_nothing(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    fleet.say("stranger", "serving", 1)

    assert [progress.device for progress in fleet.rollouts.devices(1)] == fleet.devices


def test_reports_from_many_threads_are_all_counted(fleet: Fleet) -> None:
    fleet.devices = [f"dev-{n}" for n in range(24)]
    fleet.rollouts.start("pump", 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda device: fleet.say(device, "serving", 1), fleet.devices))

    current = fleet.rollouts.current("pump")
    assert current is not None
    assert (current.devices, current.state) == ({"serving": 24}, "done")


def test_two_rollouts_at_the_same_time_leave_one_in_force(fleet: Fleet) -> None:
    outcomes: list[str] = []

    def start(version: int) -> None:
        try:
            fleet.rollouts.start("pump", version)
            outcomes.append("started")
        except RegistryConflictError:
            outcomes.append("refused")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(start, [1, 2]))

    (in_force,) = fleet.rollouts.in_force()
    assert fleet.backend.registry.aliases("pump")["champion"] == in_force.version
    assert "started" in outcomes


def test_models_are_rolled_out_apart(fleet: Fleet) -> None:
    fleet.backend.release("digits")
    fleet.rollouts.start("pump", 1)
    fleet.rollouts.start("digits", 1)
    fleet.all_serve(1)

    states = {rollout.model: rollout.state for rollout in fleet.rollouts.in_force()}
    assert states == {"pump": "done", "digits": "running"}


def test_a_fleet_without_devices_has_nothing_to_wait_for(fleet: Fleet) -> None:
    fleet.devices = []
    rollout = fleet.rollouts.start("pump", 1)

    assert (rollout.state, rollout.devices, fleet.desired.told) == ("done", {}, {})
    fleet.rollouts.on_joined("dev-1")
    assert fleet.state() == "running"


def test_the_next_deadline_is_that_of_the_devices_still_awaited(fleet: Fleet) -> None:
    assert fleet.rollouts.next_deadline() is None
    fleet.rollouts.start("pump", 1)
    deadline = fleet.rollouts.next_deadline()
    assert deadline is not None
    assert timedelta(minutes=59) < deadline - utc_now() <= timedelta(hours=1)

    fleet.all_serve(1)
    assert fleet.rollouts.next_deadline() is None


def test_a_rollout_that_does_not_exist_is_told_so(fleet: Fleet) -> None:
    with pytest.raises(ModelNotFoundError, match="no rollout 99"):
        fleet.rollouts.get(99)


def test_a_crash_before_devices_were_told_is_mended_after_the_restart(fleet: Fleet) -> None:
    fleet.desired.broken = True
    with pytest.raises(RuntimeError):
        fleet.rollouts.start("pump", 1)
    fleet.desired.broken = False
    assert fleet.desired.told == {}

    fleet.rollouts.resume()
    assert set(fleet.desired.told) == set(fleet.devices)


def test_the_fleets_own_desired_states_take_the_orders_and_keep_them(fleet: Fleet) -> None:
    states = DesiredStates(fleet.backend.database)
    rollouts = Rollouts(
        fleet.backend.database,
        fleet.backend.bus,
        registry=fleet.backend.registry,
        repository=fleet.backend.repository,
        desired=states,
        active_devices=lambda: fleet.devices,
    )
    rollouts.start("pump", 1)
    rollouts.start("pump", 2)
    rollouts.rollback("pump")
    revision = states.get("dev-1").revision
    rollouts.resume()

    again = DesiredStates(fleet.backend.database)
    again.load()
    (wanted,) = again.get("dev-1").bundles
    assert (wanted.version, wanted.rollback_ok) == (1, True)
    assert again.get("dev-1").revision == revision == 3


def test_news_tells_the_state_and_counts_of_each_change(fleet: Fleet) -> None:
    async def listen() -> list[dict[str, Any]]:
        fleet.backend.bus.attach(asyncio.get_running_loop())
        with fleet.backend.bus.subscribe() as news:
            await asyncio.to_thread(fleet.rollouts.start, "pump", 1)
            await asyncio.to_thread(fleet.all_serve, 1)
            await asyncio.to_thread(fleet.all_serve, 1)
            await asyncio.sleep(0)
            return [news.get_nowait().data for _ in range(news.qsize())]

    told = asyncio.run(listen())

    assert [data["state"] for data in told] == ["running", "running", "running", "done"]
    assert told[-1]["devices"] == {"serving": 3}


def test_upkeep_signs_expires_and_knows_when_to_come_back(fleet: Fleet) -> None:
    fleet.rollouts.start("pump", 1)
    upkeep = Upkeep(fleet.backend.repository, fleet.rollouts, fleet.backend.bus, fleet.backend.now)
    version = fleet.backend.repository.state().timestamp.version
    assert 0 < upkeep.step() <= 3600

    fleet.backend.moved_s = 13 * 3600
    fleet.moved = timedelta(hours=13)
    upkeep.step()

    assert fleet.backend.repository.state().timestamp.version == version + 1
    assert fleet.state() == "failed"


def test_upkeep_goes_on_after_a_failure(fleet: Fleet) -> None:
    (key,) = (fleet.backend.home / "secrets" / "tuf").glob("timestamp.*")
    away = key.rename(fleet.backend.home / "away.pem")
    fleet.backend.moved_s = 13 * 3600
    upkeep = Upkeep(fleet.backend.repository, fleet.rollouts, fleet.backend.bus, fleet.backend.now)
    version = fleet.backend.repository.state().timestamp.version

    async def run() -> None:
        fleet.backend.bus.attach(asyncio.get_running_loop())
        task = asyncio.create_task(upkeep.run())
        await asyncio.to_thread(fleet.rollouts.start, "pump", 1)
        away.rename(key)
        while fleet.backend.repository.state().timestamp.version == version:
            fleet.backend.bus.publish("rollout.changed")
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with pytest.raises(Exception, match="timestamp key"):
        upkeep.step()
    asyncio.run(run())


def test_sleep_ends_at_the_first_moment_and_never_outlasts_an_hour() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)

    assert sleep_s(now, now + timedelta(seconds=90), None) == 90
    assert sleep_s(now, now + timedelta(days=2)) == 3600
    assert sleep_s(now, now - timedelta(days=2), now + timedelta(seconds=5)) == 0
    assert sleep_s(now) == 3600
