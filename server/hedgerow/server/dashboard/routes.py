"""The dashboard's pages and fragments; every page is whole without JavaScript."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles

from hedgerow.server.api.access import context_of, session_of
from hedgerow.server.api.operators import Role, require
from hedgerow.server.api.sessions import COOKIE, LIFETIME_S, Session, csrf_matches
from hedgerow.server.dashboard import formats, pages
from hedgerow.server.dashboard.live import stream
from hedgerow.shared.errors import AuthError, HedgerowError
from hedgerow.shared.job import CENTRAL_MODES

_HERE = Path(__file__).parent
_MAX_FORM_BYTES = 16_384

templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
)
templates.filters.update(
    size=formats.size, when=formats.when, number=formats.number, micros=formats.micros, whole=formats.whole
)
templates.globals["central_modes"] = CENTRAL_MODES

router = APIRouter(include_in_schema=False)


class _SignInError(Exception):
    """The browser is not signed in; it is sent to the sign-in page."""


def _signed_in(request: Request) -> Session:
    session = session_of(request)
    if session is None:
        raise _SignInError
    return session


_SignedIn = Annotated[Session, Depends(_signed_in)]


def mount_dashboard(app: FastAPI) -> None:
    """Add pages, fragments, the event stream and static files to the operator app."""
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.include_router(router)
    app.add_exception_handler(_SignInError, _to_sign_in)


async def _to_sign_in(request: Request, _error: Exception) -> Response:
    if request.url.path.startswith("/fragments/"):
        return Response("signed out\n", 401)
    return RedirectResponse("/login", 303)


@router.get("/login")
async def login_page() -> HTMLResponse:
    """Show the sign-in form."""
    return _page("login.html", {"problem": ""})


@router.post("/login")
async def login(request: Request) -> Response:
    """Take an operator token, start a session, set its cookie."""
    form = await _form(request)
    context = context_of(request)
    try:
        operator = context.operators.authenticate(form.get("token", "").strip())
    except AuthError as error:
        return _page("login.html", {"problem": str(error)}, 401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE,
        context.sessions.start(operator),
        max_age=LIFETIME_S,
        httponly=True,
        samesite="strict",
        secure=context.secure_cookie,
    )
    return answer


@router.post("/logout")
async def logout(request: Request, session: _SignedIn) -> Response:
    """End the session."""
    _check_csrf(session, await _form(request))
    context_of(request).sessions.end(request.cookies.get(COOKIE))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/")
async def overview(request: Request, session: _SignedIn) -> HTMLResponse:
    """Show the fleet at a glance."""
    return await _render(request, session, "overview.html", pages.overview)


@router.get("/fleet")
async def fleet(request: Request, session: _SignedIn) -> HTMLResponse:
    """Show every device."""
    return await _render(request, session, "fleet.html", pages.fleet)


@router.get("/jobs")
async def jobs(request: Request, session: _SignedIn) -> HTMLResponse:
    """Show all jobs."""
    return await _render(request, session, "jobs.html", pages.jobs)


@router.get("/jobs/{job_id}")
async def job(request: Request, session: _SignedIn, job_id: str) -> HTMLResponse:
    """Show one job with its round curve and ε."""
    return await _render(request, session, "job.html", pages.job, job_id)


@router.get("/models")
async def models(request: Request, session: _SignedIn) -> HTMLResponse:
    """Show registered models and rollouts."""
    return await _render(request, session, "models.html", pages.models)


@router.post("/models/{model}/rollback")
async def rollback(request: Request, session: _SignedIn, model: str) -> Response:
    """Send the fleet back to a model's previous version."""
    _check_csrf(session, await _form(request))
    context = context_of(request)
    try:
        require(session.operator, Role.OPERATOR)
        rollout = await context.actions.rollback(model)
    except HedgerowError as error:
        raise HTTPException(403 if isinstance(error, AuthError) else 400, str(error)) from error
    context.audit.record(session.operator, "model.rollback", model, rollout)
    return RedirectResponse("/models", 303)


@router.get("/live")
async def live(request: Request, _session: _SignedIn) -> StreamingResponse:
    """Stream the topics that have news."""
    events = stream(context_of(request).bus, lambda: session_of(request) is not None)
    return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _render(
    request: Request,
    session: Session,
    template: str,
    build: Callable[..., Mapping[str, Any] | None],
    *arguments: str,
) -> HTMLResponse:
    context = context_of(request)
    values = await asyncio.to_thread(build, context.reader, context.alerts, *arguments)
    if values is None:
        raise HTTPException(404, "nothing of that name is here")
    common = {
        "operator": session.operator,
        "csrf": session.csrf,
        "now_us": time.time_ns() // 1000,
        "path": request.url.path,
    }
    wanted = request.headers.get("x-fragment") == "1"
    return _page(template, {**common, **values, "fragment": wanted})


def _page(template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    return HTMLResponse(templates.get_template(template).render(**values), status)


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise HTTPException(413, "that form is too large")
    try:
        fields = parse_qs(body.decode("utf-8"), max_num_fields=20)
    except (UnicodeDecodeError, ValueError) as error:
        raise HTTPException(400, "not a form") from error
    return {key: values[0] for key, values in fields.items()}


def _check_csrf(session: Session, form: Mapping[str, str]) -> None:
    if not csrf_matches(session, form.get("csrf", "")):
        raise HTTPException(403, "the form lacks this session's CSRF token; reload the page and try again")
