"""Operator tokens: shown once, kept as a hash, useless when wrong or revoked; sessions end on time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.api import tables  # noqa: F401
from hedgerow.server.api.operators import Audit, Operator, Operators, Role, require
from hedgerow.server.api.sessions import LIFETIME_S, MAX_SESSIONS, Sessions, csrf_matches
from hedgerow.server.store.database import Base, Database
from hedgerow.shared.errors import AuthError, ConfigError

ANNA = Operator("00000000", "anna", Role.OPERATOR)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'o.db'}")
    Base.metadata.create_all(opened.engine)
    yield opened
    opened.close()


@pytest.mark.parametrize("role", list(Role))
def test_a_token_names_its_operator(database: Database, role: Role) -> None:
    operators = Operators(database)

    operator = operators.authenticate(operators.issue("anna", role))

    assert (operator.name, operator.role) == ("anna", role)


def test_the_database_never_holds_the_secret(database: Database, tmp_path: Path) -> None:
    secret = Operators(database).issue("anna", Role.ADMIN).split(".")[2]
    database.close()

    assert all(secret.encode() not in file.read_bytes() for file in tmp_path.iterdir())


def test_wrong_and_revoked_tokens_are_refused(database: Database) -> None:
    operators = Operators(database)
    token = operators.issue("anna", Role.VIEWER)
    head, token_id, secret = token.split(".")

    for wrong in (
        "",
        "x",
        f"{head}.{token_id}.{secret[::-1]}",
        f"{head}.ffffffff.{secret}",
        token + "x",
        token * 10,
    ):
        with pytest.raises(AuthError):
            operators.authenticate(wrong)
    operators.revoke(token_id)
    with pytest.raises(AuthError):
        operators.authenticate(token)
    assert not operators.is_valid(token_id)


@given(st.text(max_size=300))
def test_no_text_is_a_token(text: str) -> None:
    database = Database("sqlite://")
    Base.metadata.create_all(database.engine)

    with pytest.raises(AuthError):
        Operators(database).authenticate(text)
    database.close()


@pytest.mark.parametrize("name", ["", "x" * 64])
def test_names_are_bounded(database: Database, name: str) -> None:
    with pytest.raises(ConfigError):
        Operators(database).issue(name, Role.VIEWER)


def test_roles_include_those_below() -> None:
    require(ANNA, Role.VIEWER)
    require(ANNA, Role.OPERATOR)
    with pytest.raises(AuthError, match="approver"):
        require(ANNA, Role.APPROVER)


def test_the_audit_log_keeps_order(database: Database) -> None:
    audit = Audit(database)
    for n in range(3):
        audit.record(ANNA, f"a{n}", "s")

    assert [entry.action for entry in audit.entries()] == ["a2", "a1", "a0"]


def test_sessions_expire_end_and_are_bounded() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.start(ANNA)

    assert sessions.find(first) is not None
    now[0] = LIFETIME_S + 1
    assert sessions.find(first) is None

    cookies = [sessions.start(ANNA) for _ in range(MAX_SESSIONS + 5)]
    assert sessions.find(cookies[0]) is None
    assert sessions.find(cookies[-1]) is not None
    sessions.end(cookies[-1])
    assert sessions.find(cookies[-1]) is None
    assert sessions.find(None) is None


def test_csrf_tokens_differ_by_session() -> None:
    sessions = Sessions()
    one, two = (sessions.find(sessions.start(ANNA)) for _ in range(2))

    assert one is not None
    assert two is not None
    assert csrf_matches(one, one.csrf)
    assert not csrf_matches(one, two.csrf)
    assert not csrf_matches(one, "")
