"""Operators: bearer tokens with roles, and the log of what they did."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from enum import IntEnum

import msgspec
from sqlalchemy import select

from hedgerow.server.api.tables import AuditRow, OperatorTokenRow
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, ConfigError

_FORM = re.compile(r"^hop1\.([0-9a-f]{8})\.([A-Za-z0-9_-]{32})\Z")


class Role(IntEnum):
    """What an operator may do; each role includes those below it."""

    VIEWER = 1
    OPERATOR = 2
    APPROVER = 3
    ADMIN = 4


class Operator(msgspec.Struct, frozen=True):
    """Who acts: the token's id and name, and its role."""

    token_id: str
    name: str
    role: Role


class Operators:
    """Issues and checks operator tokens ``hop1.<id>.<secret>``; the database keeps only the secret's SHA-256."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def issue(self, name: str, role: Role) -> str:
        """Return a new token, shown this once. Raises ConfigError for an empty or overlong name."""
        if not 1 <= len(name) <= limits.MAX_NAME_CHARS:
            raise ConfigError(f"an operator's name has 1 to {limits.MAX_NAME_CHARS} characters")
        token_id, secret = secrets.token_hex(4), secrets.token_urlsafe(24)
        row = OperatorTokenRow(
            token_id=token_id,
            name=name,
            role=role.name.lower(),
            secret_sha256=_hash(secret),
            created_at=utc_now(),
            revoked_at=None,
        )
        with self._database.transaction() as session:
            session.add(row)
        return f"hop1.{token_id}.{secret}"

    def authenticate(self, token: str) -> Operator:
        """Return whose token it is. Raises AuthError if it is malformed, unknown, wrong or revoked."""
        match = _FORM.match(token) if len(token) <= limits.MAX_TOKEN_BYTES else None
        if match is None:
            raise AuthError(
                "not an operator token (hop1.…); make one with: hedgerow server token --operator NAME"
            )
        with self._database.transaction() as session:
            row = session.get(OperatorTokenRow, match[1])
        known = row.secret_sha256 if row is not None else "0" * 64
        right = hmac.compare_digest(known, _hash(match[2]))
        if row is None or not right or row.revoked_at is not None:
            raise AuthError("unknown or revoked operator token")
        return Operator(row.token_id, row.name, Role[row.role.upper()])

    def revoke(self, token_id: str) -> None:
        """Make a token useless. Raises AuthError if there is none of that id."""
        with self._database.transaction() as session:
            row = session.get(OperatorTokenRow, token_id)
            if row is None:
                raise AuthError(f"no operator token {token_id!r}")
            row.revoked_at = utc_now()

    def is_valid(self, token_id: str) -> bool:
        """Tell whether the token of that id still stands; sessions ask on each request."""
        with self._database.transaction() as session:
            row = session.get(OperatorTokenRow, token_id)
        return row is not None and row.revoked_at is None


class Audit:
    """Appends who did what; nothing here changes or deletes an entry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, operator: Operator, action: str, subject: str, detail: str = "") -> None:
        """Append one entry."""
        row = AuditRow(
            at=utc_now(), actor=operator.name, action=action, subject=subject[:256], detail=detail[:4000]
        )
        with self._database.transaction() as session:
            session.add(row)

    def entries(self, limit: int = 200) -> list[AuditRow]:
        """Return the newest entries first."""
        with self._database.transaction() as session:
            return list(session.scalars(select(AuditRow).order_by(AuditRow.entry.desc()).limit(limit)))


def require(operator: Operator, role: Role) -> None:
    """Raise AuthError unless ``operator`` has ``role`` or one above it."""
    if operator.role < role:
        raise AuthError(
            f"this needs the role {role.name.lower()}; the token {operator.name!r} is {operator.role.name.lower()}"
        )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
