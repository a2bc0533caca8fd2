"""What anybody with a token may send to the fleet API: each call gets an answer below 500, and the next one works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.operator import (
    OperatorListener,
    RecordInMemory,
    device,
    event,
    job,
    operator_listener,
    round_view,
)

from hedgerow.server.api.operators import Audit, Operator, Operators, Role
from hedgerow.server.store.database import Base, Database
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError

# one client for all calls: a new one each time would spend most of the time on reading certificates
HTTP = httpx.Client()


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorListener]:
    record = RecordInMemory(
        [device("pump-1")],
        [job(f"j{n}") for n in range(1, 1500)],
        {"j1": [round_view(n) for n in range(1, 30)]},
        [],
        [],
        [event(n, device_name=f"pump-{n % 2}") for n in range(1500, 0, -1)],
    )
    with operator_listener(tmp_path_factory.mktemp("hostile"), record) as running:
        yield running
        HTTP.close()


def get(listener: OperatorListener, path: str) -> httpx.Response:
    return HTTP.get(f"{listener.url}/api/v1/{path}", headers=listener.headers())


@pytest.mark.parametrize("what", ["jobs", "events"])
@pytest.mark.parametrize(("limit", "n"), [(1, 1), (2, 2), (999, 999), (1000, 1000)])
def test_a_page_is_as_long_as_was_asked_for(
    listener: OperatorListener, what: str, limit: int, n: int
) -> None:
    assert len(get(listener, f"{what}?limit={limit}").json()) == n


@pytest.mark.parametrize(("what", "n"), [("jobs", 100), ("events", 200)])
def test_a_page_has_a_length_that_nobody_asked_for(listener: OperatorListener, what: str, n: int) -> None:
    assert len(get(listener, what).json()) == n


@pytest.mark.parametrize("what", ["jobs", "events"])
@pytest.mark.parametrize(
    "limit", ["0", "-1", "1001", "1.5", "1e3", "nan", "", "all", "9" * 400, "%00", "１００0", "1&limit=0"]
)
def test_a_length_out_of_bounds_is_refused_by_name(listener: OperatorListener, what: str, limit: str) -> None:
    answer = get(listener, f"{what}?limit={limit}")

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "limit"]


def test_events_of_one_device_are_of_it_alone(listener: OperatorListener) -> None:
    found = get(listener, "events?device=pump-1&limit=5").json()

    assert [(e["device"], e["sequence"]) for e in found] == [
        ("pump-1", n) for n in (1499, 1497, 1495, 1493, 1491)
    ]
    assert get(listener, "events?device=nobody").json() == []
    assert get(listener, "events?device=pump-1'%20or%20'1'='1").json() == []


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", str(limits.MAX_ROUNDS + 1), "9" * 30, "9" * 5000])
def test_a_round_that_cannot_be_is_refused_before_anything_is_asked(
    listener: OperatorListener, number: str
) -> None:
    assert get(listener, f"jobs/j1/rounds/{number}/cohort").status_code == 422


IDS = ["..", "%2e%2e", "'; drop table jobs; --", "\x00", "j1\n", "a" * 3000, "😀", "%", "j1 "]


@pytest.mark.parametrize("job_id", IDS, ids=repr)
def test_an_id_that_is_none_is_not_found(listener: OperatorListener, job_id: str) -> None:
    for path in ("jobs/{}", "jobs/{}/rounds"):
        assert get(listener, path.format(quote(job_id, safe=""))).status_code == 404
    assert get(listener, "jobs/j1").status_code == 200


BODIES: list[Any] = [
    b"", b"{", b"null", b"[]", b"1", b'"x"', b"\xff\xfe", b'{"toml": null}', b'{"toml": 1}', b'{"toml": ["a"]}',
    b'{"toml": "\\ud800"}', b"{" + b'"a":{' * 2000, b"[" * 5000, b'{"toml": NaN}', b'{"toml": ' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:14]))
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_a_body_that_is_no_job_is_refused(listener: OperatorListener, body: bytes, content_type: str) -> None:
    listener.actions.asked.clear()
    answer = HTTP.post(
        f"{listener.url}/api/v1/jobs",
        content=body,
        headers={**listener.headers(), "content-type": content_type},
    )

    assert 400 <= answer.status_code < 500
    assert listener.actions.asked == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"groups": ["g"] * 17},
        {"groups": "pumps"},
        {"groups": [1]},
        {"groups": [None]},
        {"ttl_s": 0},
        {"ttl_s": 7 * 86_400 + 1},
        {"ttl_s": "soon"},
        {"ttl_s": None},
        {"ttl_s": [900]},
    ],
)
def test_a_join_token_for_what_cannot_be_is_not_made(
    listener: OperatorListener, wanted: dict[str, Any]
) -> None:
    listener.actions.asked.clear()
    answer = HTTP.post(f"{listener.url}/api/v1/join-tokens", json=wanted, headers=listener.headers())

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", next(iter(wanted))]
    assert listener.actions.asked == []


@pytest.mark.parametrize("toml", ["", "x" * (256 * 1024), "\x00", "ä" * 1000, "a = '\u2028'"])
def test_a_job_s_text_arrives_as_it_was_sent(listener: OperatorListener, toml: str) -> None:
    listener.actions.asked.clear()
    answer = HTTP.post(f"{listener.url}/api/v1/jobs", json={"toml": toml}, headers=listener.headers())

    assert answer.status_code == 201
    assert listener.actions.asked == [("submit", toml)]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40).map(lambda data: quote(data, safe="")), st.sampled_from(["GET", "POST"]))
def test_no_path_brings_a_server_error(listener: OperatorListener, path: str, method: str) -> None:
    url = f"{listener.url}/api/v1/jobs/{path}"

    assert HTTP.request(method, url, headers=listener.headers()).status_code < 500


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'o.db'}")
    Base.metadata.create_all(opened.engine)
    yield opened
    opened.close()


def test_a_token_with_anything_before_or_after_it_is_none(database: Database) -> None:
    operators = Operators(database)
    token = operators.issue("anna", Role.ADMIN)

    for wrong in (
        token + "\n",
        "\n" + token,
        " " + token,
        token + "\x00",
        token.replace("hop1", "hop2"),
        token[:-1],
    ):
        with pytest.raises(AuthError, match="not an operator token"):
            operators.authenticate(wrong)
    assert operators.authenticate(token).name == "anna"


def test_a_token_s_secret_opens_no_other_token(database: Database) -> None:
    operators = Operators(database)
    first, second = (operators.issue(name, Role.ADMIN).split(".") for name in ("anna", "bert"))

    with pytest.raises(AuthError, match="unknown or revoked"):
        operators.authenticate(".".join([first[0], first[1], second[2]]))


def test_revoking_what_is_not_there_says_so_and_revoking_twice_is_one(database: Database) -> None:
    operators = Operators(database)
    token_id = operators.issue("anna", Role.VIEWER).split(".")[1]

    with pytest.raises(AuthError, match="no operator token 'ffffffff'"):
        operators.revoke("ffffffff")
    operators.revoke(token_id)
    operators.revoke(token_id)
    assert not operators.is_valid(token_id)
    assert not operators.is_valid("")


def test_the_audit_log_cuts_what_is_too_long_and_keeps_what_is_odd(database: Database) -> None:
    audit = Audit(database)
    anna = Operator("00000000", "anna", Role.ADMIN)
    audit.record(anna, "job.submit", "s" * 1000, "d" * 10_000)
    audit.record(anna, "job.submit", "'; drop table audit; --", "😀\n\x00")

    odd, long = audit.entries()
    assert (len(long.subject), len(long.detail)) == (256, 4000)
    assert (odd.subject, odd.detail) == ("'; drop table audit; --", "😀\n\x00")
    assert [e.entry for e in audit.entries(1)] == [odd.entry]
