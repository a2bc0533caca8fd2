"""Join tokens: made for the operator, kept without their secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import delete, select

from hedgerow.server.fleet.tables import JoinTokenRow
from hedgerow.server.store.database import Database, utc_now
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.identity import DEVICE_NAME, check_device_name
from hedgerow.shared.join_token import JoinToken, new_token, secret_hash

DEFAULT_LIFE_S: Final = 15 * 60.0
MAX_LIFE_S: Final = 30 * 86_400.0
MAX_GROUPS: Final = 16


class TokenInfo(msgspec.Struct, frozen=True):
    """A token as an operator may see it listed: without its secret."""

    id: str
    groups: tuple[str, ...]
    device: str | None
    created_at: datetime
    expires_at: datetime
    used_by: str | None


class JoinTokens:
    """Issues and lists join tokens."""

    def __init__(self, database: Database, ca_pin: str, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._ca_pin = ca_pin
        self._now = now

    def issue(
        self, groups: Sequence[str] = (), *, life_s: float = DEFAULT_LIFE_S, device: str | None = None
    ) -> JoinToken:
        """Return a new one-use token for a device that will belong to ``groups``.

        With ``device`` only a device of that name may use it, also to replace one that is in the fleet already.
        Raises ConfigError if a group, the name or the life is out of bounds.
        """
        if not 1 <= life_s <= MAX_LIFE_S:
            raise ConfigError(f"a token lives between 1 s and {MAX_LIFE_S:.0f} s, not {life_s:g} s")
        bad = [group for group in groups if not DEVICE_NAME.fullmatch(group)]
        if bad or len(groups) > MAX_GROUPS:
            raise ConfigError(
                f"at most {MAX_GROUPS} groups of lower-case letters, digits and hyphens; wrong: {bad[:3]}"
            )
        try:
            bound = None if device is None else check_device_name(device)
        except ContentError as error:
            raise ConfigError(str(error)) from error
        token = new_token(self._ca_pin)
        with self._database.transaction() as session:
            session.execute(
                delete(JoinTokenRow).where(JoinTokenRow.expires_at < self._now() - timedelta(days=90))
            )
            session.add(
                JoinTokenRow(
                    id=token.id,
                    secret_sha256=secret_hash(token.secret),
                    groups=list(dict.fromkeys(groups)),
                    device=bound,
                    created_at=self._now(),
                    expires_at=self._now() + timedelta(seconds=life_s),
                )
            )
        return token

    def all(self) -> list[TokenInfo]:
        """Return the tokens of the last 90 days, newest first."""
        with self._database.transaction() as session:
            rows = session.scalars(select(JoinTokenRow).order_by(JoinTokenRow.created_at.desc())).all()
            return [
                TokenInfo(row.id, tuple(row.groups), row.device, row.created_at, row.expires_at, row.used_by)
                for row in rows
            ]
