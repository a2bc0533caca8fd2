"""What operators do reaches the parts that do it, and what cannot be done says why."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import pytest
from tests.support.server_parts import Parts

from hedgerow.server.app.actions import ServerActions
from hedgerow.server.jobs.records import CohortRecord, JobRecord
from hedgerow.server.jobs.service import JobService
from hedgerow.server.registry.errors import RegistryConflictError
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.join_token import parse_token

T = TypeVar("T")


class Jobs:
    """Notes what is asked of the job service; its own tests run the real one."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def submit(self, toml: bytes, where: str, submitted_by: str = "") -> JobRecord:
        self.asked.append((toml, where))
        raise ConfigError(f"{where}: recipe: no such recipe")

    async def cancel(self, job_id: str, by: str = "") -> None:
        self.asked.append(job_id)

    async def cohort_for_admins(self, job_id: str, round: int) -> CohortRecord | None:
        return None


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def actions(parts: Parts, jobs: Jobs) -> ServerActions:
    return ServerActions(cast(JobService, jobs), parts.rollouts, parts.fleet)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_a_join_token_is_bound_to_the_servers_key_and_groups(actions: ServerActions, parts: Parts) -> None:
    token = parse_token(run(actions.join_token(["hall-a"], 60.0)))

    assert [(t.id, t.groups) for t in parts.fleet.tokens.all()] == [(token.id, ("hall-a",))]


def test_a_token_of_a_wrong_life_is_refused(actions: ServerActions) -> None:
    with pytest.raises(ConfigError, match="a token lives between"):
        run(actions.join_token([], 0.0))


def test_a_revoked_device_is_out(actions: ServerActions, parts: Parts) -> None:
    parts.join("pump-1")
    run(actions.revoke_device("pump-1"))

    device = parts.fleet.devices.get("pump-1")
    assert device is not None
    assert (device.status, device.revoked_why) == ("revoked", "revoked by an operator")


def test_revoking_nobody_is_refused(actions: ServerActions) -> None:
    with pytest.raises(ConfigError, match="no device named 'pump-9'"):
        run(actions.revoke_device("pump-9"))


def test_a_rollback_sends_everybody_back(actions: ServerActions, parts: Parts) -> None:
    parts.join("pump-1")
    for job_id in ("j-1", "j-2"):
        version = parts.register(job_id=job_id)
        parts.rollouts.start(version.model, version.version)

    rollout = run(actions.rollback("pump"))

    assert rollout == str(parts.rollouts.in_force()[0].id)
    assert parts.registry.aliases("pump") == {"champion": 1, "previous": 2}
    assert [(b.version, b.rollback_ok) for b in parts.fleet.desired.get("pump-1").bundles] == [(1, True)]


def test_a_rollback_without_a_previous_version_is_refused(actions: ServerActions, parts: Parts) -> None:
    version = parts.register()
    parts.rollouts.start(version.model, version.version)

    with pytest.raises(RegistryConflictError):
        run(actions.rollback("pump"))


def test_jobs_are_passed_on_with_their_errors(actions: ServerActions, jobs: Jobs) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        run(actions.submit_job("name = 'é'"))
    run(actions.cancel_job("j-1"))

    assert jobs.asked == [("name = 'é'".encode(), "job"), "j-1"]


def test_a_cohort_of_no_round_is_refused(actions: ServerActions) -> None:
    with pytest.raises(ConfigError, match="job 'j-1' has no round 3"):
        run(actions.cohort("j-1", 3))
