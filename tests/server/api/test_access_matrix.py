"""Every route that the app has, as every caller there is: who gets in, who is sent away, and who may change anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route
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
)

from hedgerow.server.api.access import POLICY
from hedgerow.server.api.app import create_operator_app
from hedgerow.server.api.operators import Role
from hedgerow.server.api.sessions import COOKIE
from hedgerow.server.monitor.views import RolloutView

# (method, path as mounted, path as called, body, least role, status for who may)
API: list[tuple[str, str, str, Any, Role, int]] = [
    ("GET", "/api/v1/devices", "", None, Role.VIEWER, 200),
    ("POST", "/api/v1/devices/{device}/revoke", "/api/v1/devices/pump-1/revoke", None, Role.ADMIN, 204),
    ("POST", "/api/v1/join-tokens", "", {"groups": ["pumps"]}, Role.OPERATOR, 200),
    ("GET", "/api/v1/jobs", "", None, Role.VIEWER, 200),
    ("POST", "/api/v1/jobs", "", {"toml": "name = 'a'"}, Role.OPERATOR, 201),
    ("GET", "/api/v1/jobs/{job_id}", "/api/v1/jobs/j1", None, Role.VIEWER, 200),
    ("POST", "/api/v1/jobs/{job_id}/cancel", "/api/v1/jobs/j1/cancel", None, Role.OPERATOR, 204),
    ("GET", "/api/v1/jobs/{job_id}/rounds", "/api/v1/jobs/j1/rounds", None, Role.VIEWER, 200),
    (
        "GET",
        "/api/v1/jobs/{job_id}/rounds/{number}/cohort",
        "/api/v1/jobs/j1/rounds/1/cohort",
        None,
        Role.ADMIN,
        200,
    ),
    ("GET", "/api/v1/models", "", None, Role.VIEWER, 200),
    ("POST", "/api/v1/models/{model}/rollback", "/api/v1/models/pump/rollback", None, Role.OPERATOR, 200),
    ("GET", "/api/v1/rollouts", "", None, Role.VIEWER, 200),
    ("GET", "/api/v1/events", "", None, Role.VIEWER, 200),
    ("GET", "/api/v1/alerts", "", None, Role.VIEWER, 200),
    ("GET", "/metrics", "", None, Role.VIEWER, 200),
]
STREAMS = {("GET", "/api/v1/news"), ("GET", "/live")}
PAGES = ["/", "/fleet", "/jobs", "/jobs/{job_id}", "/models"]
FORMS = ["/logout", "/models/{model}/rollback"]
OPEN = {("GET", "/login"), ("POST", "/login"), ("GET", "/api/openapi.json")}
CALLS = [(m, called or path, body, needed, status) for m, path, called, body, needed, status in API]
IDS = [f"{method} {path}" for method, path, *_ in CALLS]

# one client for all calls: a new one each time would spend most of the time on reading certificates
HTTP = httpx.Client()


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorListener]:
    record = RecordInMemory(
        [device("pump-1")],
        [job()],
        {"j1": [round_view(1)]},
        [model()],
        [RolloutView("r1", "pump", 2, "all", "running", NOW, {"serving": 1})],
        [event(1)],
    )
    with operator_listener(tmp_path_factory.mktemp("matrix"), record) as running:
        yield running
        HTTP.close()


@pytest.fixture(autouse=True)
def fresh(listener: OperatorListener) -> None:
    listener.actions.asked.clear()


def call(
    listener: OperatorListener, method: str, path: str, body: Any, **more: Any
) -> tuple[int, httpx.Response]:
    answer = HTTP.request(method, listener.url + path, json=body, **more)
    return answer.status_code, answer


def session_of(listener: OperatorListener, role: Role) -> tuple[str, str]:
    """Return the cookie and the CSRF token of a browser that signed in with the role's token."""
    operator = listener.context.operators.authenticate(listener.tokens[role])
    cookie = listener.context.sessions.start(operator)
    session = listener.context.sessions.find(cookie)
    assert session is not None
    return cookie, session.csrf


def every_route(routes: Iterable[Any]) -> Iterator[Any]:
    """Yield the routes, those of included routers in their place."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from every_route(included.routes)


def test_the_matrix_holds_every_route_that_the_app_has(listener: OperatorListener) -> None:
    """A route that is added without a place here fails: somebody has to say who may call it."""
    app = create_operator_app(listener.context)
    routes = list(every_route(app.routes))
    found = {
        (method, route.path)
        for route in routes
        if isinstance(route, APIRoute | Route)
        for method in (route.methods or set()) - {"HEAD"}
    }

    covered = {(method, path) for method, path, *_ in API} | STREAMS | OPEN
    covered |= {("GET", path) for path in PAGES} | {("POST", path) for path in FORMS}
    assert found == covered
    assert [route.path for route in routes if isinstance(route, Mount)] == ["/static"]


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name.lower())
@pytest.mark.parametrize(("method", "path", "body", "needed", "status"), CALLS, ids=IDS)
def test_a_token_opens_what_its_role_may_and_nothing_else(
    listener: OperatorListener, method: str, path: str, body: Any, needed: Role, status: int, role: Role
) -> None:
    got, answer = call(listener, method, path, body, headers=listener.headers(role))

    if role >= needed:
        assert got == status
        return
    assert got == 403
    detail = answer.json()["detail"]
    assert needed.name.lower() in detail
    assert role.name.lower() in detail
    assert listener.actions.asked == []


@pytest.mark.parametrize(("method", "path", "body", "needed", "status"), CALLS, ids=IDS)
def test_without_a_good_token_nothing_answers(
    listener: OperatorListener, method: str, path: str, body: Any, needed: Role, status: int
) -> None:
    token = listener.tokens[Role.ADMIN]
    head, token_id, secret = token.split(".")
    wrong = [
        {},
        {"authorization": f"Basic {token}"},
        {"authorization": f"Bearer {head}.{token_id}.{'A' * 32}"},
        {"authorization": f"Bearer {token.upper()}"},
        {"cookie": f"{COOKIE}={token}"},
    ]
    for headers in wrong:
        got, answer = call(listener, method, path, body, headers=headers)
        assert got == 401, headers
        assert answer.headers["www-authenticate"] == "Bearer"
        assert secret not in answer.text
    assert listener.actions.asked == []


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN], ids=["viewer", "admin"])
@pytest.mark.parametrize(("method", "path", "body", "needed", "status"), CALLS, ids=IDS)
def test_a_cookie_reads_alone_and_acts_with_its_csrf_header_only(
    listener: OperatorListener, method: str, path: str, body: Any, needed: Role, status: int, role: Role
) -> None:
    cookie, csrf = session_of(listener, role)
    _, foreign = session_of(listener, role)
    headers = {"cookie": f"{COOKIE}={cookie}"}

    alone, _ = call(listener, method, path, body, headers=headers)
    forged, _ = call(listener, method, path, body, headers={**headers, "x-csrf": foreign})
    if method != "GET":
        assert (alone, forged) == (403, 403)
        assert listener.actions.asked == []
    whole, _ = call(listener, method, path, body, headers={**headers, "x-csrf": csrf})
    assert whole == (status if role >= needed else 403)
    if method == "GET":
        assert alone == whole


@pytest.mark.parametrize("path", ["/", "/fleet", "/jobs", "/jobs/j1", "/models", "/live"])
def test_a_page_sends_who_is_not_signed_in_to_the_sign_in_page(listener: OperatorListener, path: str) -> None:
    for headers in ({}, listener.headers(Role.ADMIN), {"cookie": f"{COOKIE}=nothing"}):
        answer = HTTP.get(listener.url + path, headers=headers)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name.lower())
@pytest.mark.parametrize("path", ["/", "/fleet", "/jobs", "/jobs/j1", "/models"])
def test_every_role_may_see_every_page(listener: OperatorListener, path: str, role: Role) -> None:
    cookie, csrf = session_of(listener, role)

    answer = HTTP.get(listener.url + path, headers={"cookie": f"{COOKIE}={cookie}"})

    assert answer.status_code == 200
    assert f"({role.name.lower()})" in answer.text
    assert csrf in answer.text, "its own form needs it"
    assert (re.search(r"/rollback", answer.text) is not None) is (path == "/models" and role >= Role.OPERATOR)


@pytest.mark.parametrize("path", ["/logout", "/models/pump/rollback"])
def test_a_form_without_this_session_s_csrf_token_does_nothing(listener: OperatorListener, path: str) -> None:
    cookie, csrf = session_of(listener, Role.ADMIN)
    _, foreign = session_of(listener, Role.ADMIN)
    headers = {"cookie": f"{COOKIE}={cookie}"}

    for form in ({}, {"csrf": ""}, {"csrf": foreign}, {"csrf": csrf + "x"}, {"csrf": csrf[:-1]}):
        assert HTTP.post(listener.url + path, data=form, headers=headers).status_code == 403, form
    assert listener.actions.asked == []
    assert HTTP.get(listener.url + "/", headers=headers).status_code == 200, "still signed in"
    assert HTTP.post(listener.url + path, data={"csrf": csrf}, headers=headers).status_code == 303


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:80:80", ""],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/login", "/metrics", "/api/v1/devices", "/static/live.js"])
def test_no_path_answers_to_a_foreign_host_name(listener: OperatorListener, host: str, path: str) -> None:
    answer = HTTP.get(listener.url + path, headers={**listener.headers(), "host": host})

    assert answer.status_code in (400, 421)
    assert "pump" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:8000", "[::1]", "[::1]:8000"])
def test_every_name_of_this_machine_is_answered(listener: OperatorListener, host: str) -> None:
    answer = HTTP.get(f"{listener.url}/api/v1/devices", headers={**listener.headers(), "host": host})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/login", "/metrics", "/api/v1/devices", "/nothing", "/static/style.css"]
)
def test_every_answer_keeps_the_browser_safe(listener: OperatorListener, path: str) -> None:
    answer = HTTP.get(listener.url + path, headers=listener.headers())

    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY


@pytest.mark.parametrize(("method", "path", "body", "needed", "status"), CALLS, ids=IDS)
def test_another_method_is_not_allowed_and_does_nothing(
    listener: OperatorListener, method: str, path: str, body: Any, needed: Role, status: int
) -> None:
    taken = {m for m, other, *_ in CALLS if other == path}
    for other in {"GET", "POST", "PUT", "PATCH", "DELETE"} - taken:
        got, _ = call(listener, other, path, body, headers=listener.headers())
        assert got == 405, other
    assert listener.actions.asked == []


def test_a_token_revoked_while_its_browser_is_signed_in_ends_both(tmp_path: Path) -> None:
    with operator_listener(tmp_path, RecordInMemory()) as running:
        cookie, csrf = session_of(running, Role.ADMIN)
        headers = {"cookie": f"{COOKIE}={cookie}", "x-csrf": csrf}
        assert HTTP.get(f"{running.url}/api/v1/devices", headers=headers).status_code == 200

        running.context.operators.revoke(running.tokens[Role.ADMIN].split(".")[1])

        assert HTTP.get(f"{running.url}/api/v1/devices", headers=headers).status_code == 401
        assert HTTP.post(f"{running.url}/api/v1/jobs/j1/cancel", headers=headers).status_code == 401
        assert HTTP.get(f"{running.url}/", headers=headers).status_code == 303
        assert running.actions.asked == []


def test_what_people_do_is_in_the_audit_log_with_their_name_and_what_they_may_not_is_not(
    tmp_path: Path,
) -> None:
    with operator_listener(tmp_path, RecordInMemory([device()], [job()], {"j1": [round_view(1)]})) as running:
        for role in Role:
            for method, path, body, _, _ in CALLS:
                call(running, method, path, body, headers=running.headers(role))
        entries = [(e.actor, e.action, e.subject) for e in running.context.audit.entries()][::-1]

    acts = {
        Role.OPERATOR: [
            ("join-token.create", "pumps"), ("job.submit", "j9"), ("job.cancel", "j1"), ("model.rollback", "pump"),
        ],
        Role.ADMIN: [
            ("device.revoke", "pump-1"), ("join-token.create", "pumps"), ("job.submit", "j9"), ("job.cancel", "j1"),
            ("cohort.read", "j1 round 1"), ("model.rollback", "pump"),
        ],
    }  # fmt: skip
    acts[Role.APPROVER] = acts[Role.OPERATOR]
    assert entries == [
        (role.name.lower(), *act) for role in (Role.OPERATOR, Role.APPROVER, Role.ADMIN) for act in acts[role]
    ]


def test_the_openapi_document_is_open_and_tells_nothing_of_this_fleet(listener: OperatorListener) -> None:
    answer = HTTP.get(f"{listener.url}/api/openapi.json")

    assert answer.status_code == 200
    assert "pump-1" not in json.dumps(answer.json())
    assert {path for _, path, *_ in API} <= set(answer.json()["paths"])
