"""Pages over a real socket: sign-in, sessions, CSRF, escaping, and all of it readable without JavaScript."""

from __future__ import annotations

import re
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

PAGES = ["/", "/fleet", "/jobs", "/jobs/j1", "/models"]


def full_record() -> RecordInMemory:
    return RecordInMemory(
        [device("pump-1"), device("pump-2", status="offline")],
        [job()],
        {"j1": [round_view(1, 0.6), round_view(2, 0.8)]},
        [model()],
        [RolloutView("r1", "pump", 2, "all", "running", NOW, {"serving": 1})],
        [event(1)],
    )


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[OperatorListener]:
    with operator_listener(tmp_path, full_record()) as running:
        yield running


def signed_in(listener: OperatorListener, role: Role = Role.ADMIN) -> httpx.Client:
    client = httpx.Client(base_url=listener.url)
    answer = client.post("/login", data={"token": listener.tokens[role]})
    assert answer.status_code == 303
    return client


def csrf_of(page: str) -> str:
    match = re.search(r'name="csrf" value="([^"]+)"', page)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("path", PAGES)
def test_a_stranger_is_sent_to_sign_in(listener: OperatorListener, path: str) -> None:
    answer = httpx.get(listener.url + path)

    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(listener: OperatorListener) -> None:
    answer = httpx.post(f"{listener.url}/login", data={"token": listener.tokens[Role.VIEWER]})

    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert listener.tokens[Role.VIEWER] not in cookie


def test_a_wrong_token_stays_outside(listener: OperatorListener) -> None:
    answer = httpx.post(f"{listener.url}/login", data={"token": "hop1.nonsense"})

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_whole_without_javascript_and_load_nothing_foreign(
    listener: OperatorListener, path: str
) -> None:
    answer = signed_in(listener).get(path)

    assert answer.status_code == 200
    assert "<h1>" in answer.text
    assert re.findall(r'(?:src|href)="(?:https?:)?//', answer.text) == []
    assert " style=" not in answer.text
    assert "unsafe-inline" not in answer.headers["content-security-policy"]


def test_the_job_page_shows_curve_and_epsilon(listener: OperatorListener) -> None:
    page = signed_in(listener).get("/jobs/j1").text

    assert "<polyline" in page
    assert re.search(r'data-testid="epsilon">2\.5<', page)
    assert page.count('data-testid="round-row"') == 2
    assert "pump-1" not in page


def test_the_page_of_a_central_job_shows_epsilon_and_no_count(tmp_path: Path) -> None:
    asked = job(mode="central-poisson", epsilon=2.5, epsilon_asked=4.0)
    record = RecordInMemory([], [asked], {"j1": [withheld_round(1), withheld_round(2, 2.5)]})
    with operator_listener(tmp_path, record) as running:
        page = signed_in(running).get("/jobs/j1").text

    row = page[page.index('data-testid="round-row"') :].partition("</tr>")[0]
    assert row.count("<td>–</td>") == 4
    assert "– / –" in row
    assert "2.5" in row
    assert "counts are withheld as well" in page
    assert "charged to every device" in page
    assert "largest over devices" not in page


def test_empty_states_name_the_next_command(tmp_path: Path) -> None:
    with operator_listener(tmp_path) as listener:
        client = signed_in(listener)

        assert "hedgerow agent join" in client.get("/fleet").text
        assert "hedgerow job submit" in client.get("/jobs").text


def test_names_from_devices_are_escaped(listener: OperatorListener) -> None:
    listener.record.all_events.insert(0, event(9, device_name="<script>alert(1)</script>"))

    page = signed_in(listener).get("/").text

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_rollback_needs_role_and_csrf_token(listener: OperatorListener) -> None:
    admin, viewer = signed_in(listener), signed_in(listener, Role.VIEWER)
    token = csrf_of(admin.get("/models").text)

    assert admin.post("/models/pump/rollback", data={}).status_code == 403
    assert admin.post("/models/pump/rollback", data={"csrf": "x"}).status_code == 403
    assert (
        viewer.post("/models/pump/rollback", data={"csrf": csrf_of(viewer.get("/").text)}).status_code == 403
    )
    assert "Roll back" not in viewer.get("/models").text
    assert listener.actions.asked == []

    assert admin.post("/models/pump/rollback", data={"csrf": token}).status_code == 303
    assert listener.actions.asked == [("rollback", "pump")]


def test_a_cookie_alone_cannot_change_anything_through_the_api(listener: OperatorListener) -> None:
    client = signed_in(listener)

    assert client.get("/api/v1/devices").status_code == 200
    assert client.post("/api/v1/models/pump/rollback").status_code == 403
    assert listener.actions.asked == []


def test_signing_out_ends_the_session(listener: OperatorListener) -> None:
    client = signed_in(listener)

    client.post("/logout", data={"csrf": csrf_of(client.get("/").text)})

    assert client.get("/").status_code == 303


def test_revoking_the_token_ends_its_sessions(listener: OperatorListener) -> None:
    client = signed_in(listener, Role.VIEWER)

    listener.context.operators.revoke(listener.tokens[Role.VIEWER].split(".")[1])

    assert client.get("/").status_code == 303


def test_an_oversized_form_is_refused(listener: OperatorListener) -> None:
    assert httpx.post(f"{listener.url}/login", data={"token": "x" * 20_000}).status_code == 413


def test_unknown_jobs_are_not_found(listener: OperatorListener) -> None:
    assert signed_in(listener).get("/jobs/nothing").status_code == 404
