"""The fleet API over a real socket: who may do what, what comes back, what a wrong call is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.operator import (
    NOW,
    OperatorListener,
    RecordInMemory,
    device,
    event,
    job,
    model,
    operator_listener,
    round_view,
    withheld_round,
)

from hedgerow.server.api.operators import Role
from hedgerow.server.monitor.views import RolloutView


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[OperatorListener]:
    record = RecordInMemory(
        [device("pump-1"), device("pump-2", status="offline")],
        [job()],
        {"j1": [round_view(1), round_view(2)]},
        [model()],
        [RolloutView("r1", "pump", 2, "all", "running", NOW, {"serving": 1, "pending": 1})],
        [event(2), event(1, "notice")],
    )
    with operator_listener(tmp_path, record) as running:
        yield running


def get(listener: OperatorListener, path: str, role: Role = Role.VIEWER) -> httpx.Response:
    return httpx.get(listener.url + path, headers=listener.headers(role))


READS = ["devices", "jobs", "jobs/j1", "jobs/j1/rounds", "models", "rollouts", "events", "alerts"]


@pytest.mark.parametrize("path", READS)
def test_a_viewer_reads_and_a_stranger_does_not(listener: OperatorListener, path: str) -> None:
    assert get(listener, f"/api/v1/{path}").status_code == 200
    assert httpx.get(f"{listener.url}/api/v1/{path}").status_code == 401
    wrong = {"authorization": "Bearer hop1.00000000." + "a" * 32}
    assert httpx.get(f"{listener.url}/api/v1/{path}", headers=wrong).status_code == 401


def test_values_arrive_as_the_views_have_them(listener: OperatorListener) -> None:
    devices = get(listener, "/api/v1/devices").json()

    assert [d["device"] for d in devices] == ["pump-1", "pump-2"]
    assert devices[0]["serving"][0]["precision"] == "int8"
    assert get(listener, "/api/v1/jobs/j1").json()["epsilon"] == 2.5
    assert [r["round"] for r in get(listener, "/api/v1/jobs/j1/rounds").json()] == [1, 2]
    assert get(listener, "/api/v1/models").json()[0]["aliases"] == ["champion"]
    assert {a["name"] for a in get(listener, "/api/v1/alerts").json()} == {"DeviceOffline", "Anomaly"}


WRITES = [
    ("jobs", {"toml": "name='a'"}, Role.OPERATOR, 201),
    ("jobs/j1/cancel", {}, Role.OPERATOR, 204),
    ("models/pump/rollback", {}, Role.OPERATOR, 200),
    ("join-tokens", {"groups": ["pumps"]}, Role.OPERATOR, 200),
    ("devices/pump-1/revoke", {}, Role.ADMIN, 204),
]


@pytest.mark.parametrize(("path", "body", "needed", "status"), WRITES)
def test_only_the_role_may_act_and_the_audit_log_has_it(
    listener: OperatorListener, path: str, body: dict[str, object], needed: Role, status: int
) -> None:
    below = Role(needed - 1)
    url = f"{listener.url}/api/v1/{path}"

    assert httpx.post(url, json=body, headers=listener.headers(below)).status_code == 403
    assert listener.actions.asked == []
    assert httpx.post(url, json=body, headers=listener.headers(needed)).status_code == status

    assert len(listener.actions.asked) == 1
    assert listener.context.audit.entries()[0].actor == needed.name.lower()


def test_who_was_drawn_is_for_admins_and_audited(listener: OperatorListener) -> None:
    path = "/api/v1/jobs/j1/rounds/1/cohort"

    assert get(listener, path, Role.APPROVER).status_code == 403
    assert get(listener, path, Role.ADMIN).json() == {"devices": ["pump-1", "pump-2"]}
    assert listener.context.audit.entries()[0].action == "cohort.read"


def test_a_refused_job_says_why(listener: OperatorListener) -> None:
    answer = httpx.post(
        f"{listener.url}/api/v1/jobs",
        json={"toml": "recipe='missing'"},
        headers=listener.headers(Role.OPERATOR),
    )

    assert answer.status_code == 400
    assert "no recipe 'missing'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "jobs/nothing", None, 404),
        ("GET", "jobs?limit=0", None, 422),
        ("POST", "jobs", {"toml": "x" * (256 * 1024 + 1)}, 422),
        ("POST", "jobs", {}, 422),
        ("POST", "join-tokens", {"ttl_s": -1}, 422),
    ],
)
def test_wrong_calls_are_told_so(
    listener: OperatorListener, method: str, path: str, body: dict[str, object] | None, status: int
) -> None:
    answer = httpx.request(method, f"{listener.url}/api/v1/{path}", json=body, headers=listener.headers())

    assert answer.status_code == status
    assert "detail" in answer.json()


def test_a_foreign_host_name_is_refused(listener: OperatorListener) -> None:
    answer = httpx.get(
        f"{listener.url}/api/v1/devices", headers={**listener.headers(), "host": "evil.example"}
    )

    assert answer.status_code == 421


def test_a_revoked_token_is_useless_at_once(listener: OperatorListener) -> None:
    token_id = listener.tokens[Role.VIEWER].split(".")[1]

    listener.context.operators.revoke(token_id)

    assert get(listener, "/api/v1/devices").status_code == 401


def test_the_openapi_document_lists_every_path(listener: OperatorListener) -> None:
    document = httpx.get(f"{listener.url}/api/openapi.json").json()

    assert {f"/api/v1/{p}" for p in ("devices", "jobs", "models", "rollouts", "events", "alerts")} <= set(
        document["paths"]
    )
    assert "JobView" in document["components"]["schemas"]


def test_metrics_have_no_count_of_a_round_that_withholds_them(tmp_path: Path) -> None:
    record = RecordInMemory([], [job(mode="central-poisson")], {"j1": [withheld_round(2)]})
    with operator_listener(tmp_path, record) as running:
        text = get(running, "/metrics").text

    assert "hedgerow_round_number 2.0" in text
    assert "hedgerow_round_devices{" not in text
    assert "hedgerow_privacy_epsilon_max 2.5" in text


def test_metrics_name_no_device_and_grow_with_no_fleet(listener: OperatorListener) -> None:
    few = get(listener, "/metrics").text
    listener.record.all_devices += [device(f"pump-{n}") for n in range(3, 300)]

    many = get(listener, "/metrics").text

    assert "pump-1" not in many
    assert many.count("\n") == few.count("\n")
    assert 'hedgerow_fleet_devices{status="online"} 298.0' in many
    assert httpx.get(f"{listener.url}/metrics").status_code == 401
