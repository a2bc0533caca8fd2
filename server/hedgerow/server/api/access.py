"""Who calls: a bearer token, or a signed-in browser; and what every answer carries for the browser's safety."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hedgerow.server.api.context import OperatorContext
from hedgerow.server.api.operators import Operator, Role, require
from hedgerow.server.api.sessions import COOKIE, Session, csrf_matches
from hedgerow.shared.errors import AuthError

_bearer = HTTPBearer(auto_error=False, description="an operator token: hedgerow server token --operator NAME")

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def context_of(request: Request) -> OperatorContext:
    """Return the context that the server put on the app."""
    context: OperatorContext = request.app.state.context
    return context


def session_of(request: Request) -> Session | None:
    """Return the browser's session if it is signed in and its token still stands."""
    context = context_of(request)
    session = context.sessions.find(request.cookies.get(COOKIE))
    if session is None or not context.operators.is_valid(session.operator.token_id):
        return None
    return session


def caller(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Operator:
    """Return who calls. A cookie alone may read; to change something it takes the CSRF header too."""
    context = context_of(request)
    if given is not None:
        try:
            return context.operators.authenticate(given.credentials)
        except AuthError as error:
            raise HTTPException(401, str(error), {"WWW-Authenticate": "Bearer"}) from error
    session = session_of(request)
    if session is None:
        raise HTTPException(401, "an operator token is required", {"WWW-Authenticate": "Bearer"})
    if request.method not in ("GET", "HEAD") and not csrf_matches(session, request.headers.get("x-csrf", "")):
        raise HTTPException(403, "the request lacks this session's CSRF token")
    return session.operator


def role(needed: Role) -> Callable[[Operator], Operator]:
    """Return a dependency that lets only callers with ``needed`` pass."""

    def check(operator: Annotated[Operator, Depends(caller)]) -> Operator:
        """Return the caller. Raises HTTPException (403) with what it lacks."""
        try:
            require(operator, needed)
        except AuthError as error:
            raise HTTPException(403, str(error)) from error
        return operator

    return check


class Harden:
    """ASGI middleware: refuses foreign Host headers (DNS rebinding), adds the headers that keep a browser safe."""

    def __init__(self, app: ASGIApp, allowed_hosts: tuple[str, ...]) -> None:
        self._app = app
        self._allowed = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 421 to a foreign host, else pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name not in self._allowed:
            refusal = PlainTextResponse("this listener does not answer to that host name\n", 421)
            await refusal(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            """Pass a message on, an answer's beginning with the headers added."""
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", POLICY)
                headers.setdefault("cache-control", "no-store")
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
            await send(message)

        await self._app(scope, receive, with_headers)
