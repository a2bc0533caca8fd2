from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.fleet.desired import with_bundle, with_job, without_bundle, without_job
from hedgerow.shared.messages import BundleTarget, DesiredState, JobAssignment


def target(model: str = "m", version: int = 1) -> BundleTarget:
    return BundleTarget(model, version, f"{version:064x}")


JOB = JobAssignment("job-1", "recipe", "hash")


def test_device_without_wishes_has_revision_zero(server: Any) -> None:
    assert server.fleet.desired.get("pump-1") == DesiredState(0)


def test_each_change_raises_the_revision_of_those_it_changes(server: Any) -> None:
    desired = server.fleet.desired
    desired.set_bundle(["a", "b"], target())
    desired.set_bundle(["a", "b"], target())
    desired.set_job(["a"], JOB)

    assert desired.get("a") == DesiredState(2, (target(),), (JOB,))
    assert desired.get("b") == DesiredState(1, (target(),))
    assert desired.devices_of_job("job-1") == ("a",)
    desired.clear_job("job-1")
    assert desired.get("a") == DesiredState(3, (target(),))
    assert desired.get("b").revision == 1
    desired.clear_bundle(["a"], "m")
    assert desired.get("a") == DesiredState(4)


def test_wishes_outlive_a_restart(server: Any) -> None:
    server.fleet.desired.set_bundle(["a"], target(version=2))
    server.fleet.desired.set_job(["a"], JOB)
    restarted = server.again()

    assert restarted.fleet.desired.get("a") == DesiredState(2, (target(version=2),), (JOB,))
    restarted.database.close()


def test_large_fleets_are_changed_in_one_go(server: Any) -> None:
    names = [f"device-{n}" for n in range(2000)]
    server.fleet.desired.set_bundle(names, target())
    server.fleet.desired.set_job(names, JOB)
    restarted = server.again()

    assert all(restarted.fleet.desired.get(name).revision == 2 for name in names)
    restarted.database.close()


def test_revoked_device_is_wanted_for_nothing(server: Any) -> None:
    server.join("pump-1")
    server.fleet.desired.set_job(["pump-1"], JOB)
    server.fleet.devices.revoke("pump-1", "stolen")

    assert server.fleet.desired.get("pump-1") == DesiredState(2)


def test_waiting_ends_with_the_change_made_in_another_thread(server: Any) -> None:
    async def scenario() -> tuple[DesiredState | None, DesiredState | None]:
        desired = server.fleet.desired
        desired.attach(asyncio.get_running_loop())
        first = asyncio.create_task(desired.wait("a", 0, 10))
        second = asyncio.create_task(desired.wait("b", 0, 0.05))
        await asyncio.sleep(0)
        await asyncio.to_thread(desired.set_bundle, ["a"], target())
        return await first, await second

    woken, unmoved = asyncio.run(scenario())
    assert woken == DesiredState(1, (target(),))
    assert unmoved is None


def test_waiting_ends_at_once_if_the_revision_is_another(server: Any) -> None:
    async def scenario() -> list[DesiredState | None]:
        server.fleet.desired.set_bundle(["a"], target())
        return [await server.fleet.desired.wait("a", seen, 10) for seen in (-1, 0, 7)]

    assert asyncio.run(scenario()) == [DesiredState(1, (target(),))] * 3


def test_shutdown_ends_every_wait_and_leaves_nothing_behind(server: Any) -> None:
    async def scenario() -> list[DesiredState | None]:
        desired = server.fleet.desired
        waits = [asyncio.create_task(desired.wait(name, 0, 60)) for name in ("a", "a", "b")]
        await asyncio.sleep(0)
        desired.wake_all()
        return [await wait for wait in waits]

    assert asyncio.run(scenario()) == [None, None, None]
    assert server.fleet.desired._waiting == {}


targets = st.builds(target, st.sampled_from("abc"), st.integers(1, 3))
jobs = st.builds(JobAssignment, st.sampled_from("xyz"), st.just("r"), st.just("h"))


@given(st.lists(targets | jobs, max_size=30))
def test_there_is_one_wish_per_model_and_job(wishes: list[BundleTarget | JobAssignment]) -> None:
    state = DesiredState(0)
    for wish in wishes:
        state = with_bundle(state, wish) if isinstance(wish, BundleTarget) else with_job(state, wish)

    assert {bundle.model: bundle for bundle in state.bundles} == {
        w.model: w for w in wishes if isinstance(w, BundleTarget)
    }
    assert len({bundle.model for bundle in state.bundles}) == len(state.bundles)
    assert {job.job_id for job in state.jobs} == {w.job_id for w in wishes if isinstance(w, JobAssignment)}
    assert len({job.job_id for job in state.jobs}) == len(state.jobs)
    for model in "abc":
        state = without_bundle(state, model)
    for job_id in "xyz":
        state = without_job(state, job_id)
    assert state == DesiredState(0)
