"""Dashboard sessions: an opaque cookie per login, a CSRF token per session, both forgotten when the server stops."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

import msgspec

from hedgerow.server.api.operators import Operator

COOKIE = "hedgerow_session"
LIFETIME_S = 12 * 3600
MAX_SESSIONS = 1000


class Session(msgspec.Struct, frozen=True):
    """One signed-in browser; ``expires_s`` is on the monotonic clock."""

    operator: Operator
    csrf: str
    expires_s: float


class Sessions:
    """Keeps sessions in memory, at most ``MAX_SESSIONS``: the oldest goes first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}

    def start(self, operator: Operator) -> str:
        """Return the cookie of a new session."""
        while len(self._open) >= MAX_SESSIONS:
            self._open.pop(next(iter(self._open)))
        cookie = secrets.token_urlsafe(32)
        self._open[cookie] = Session(operator, secrets.token_urlsafe(24), self._clock() + LIFETIME_S)
        return cookie

    def find(self, cookie: str | None) -> Session | None:
        """Return the session of ``cookie`` unless there is none or it has expired."""
        session = self._open.get(cookie or "")
        if session is not None and session.expires_s < self._clock():
            self.end(cookie)
            return None
        return session

    def end(self, cookie: str | None) -> None:
        """Forget a session."""
        self._open.pop(cookie or "", None)


def csrf_matches(session: Session, given: str) -> bool:
    """Tell whether a form carries the session's CSRF token; compared in constant time."""
    return hmac.compare_digest(session.csrf.encode(), given.encode())
