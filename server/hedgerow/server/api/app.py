"""The operator listener as one ASGI app: fleet API, metrics, dashboard."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from hedgerow.server.api.access import Harden
from hedgerow.server.api.context import OperatorContext
from hedgerow.server.api.fleet_api import metrics_router, router
from hedgerow.server.dashboard.routes import mount_dashboard
from hedgerow.shared.errors import AuthError, BudgetError, ConfigError, HedgerowError


def create_operator_app(context: OperatorContext) -> FastAPI:
    """Return the app; it answers to ``context.allowed_hosts`` only. The interactive docs of FastAPI are off: they
    load scripts from elsewhere; the OpenAPI document itself is at ``/api/openapi.json``."""
    app = FastAPI(
        title="Hedgerow fleet API",
        version=version("hedgerow"),
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    app.include_router(router)
    app.include_router(metrics_router)
    mount_dashboard(app)
    app.add_middleware(Harden, allowed_hosts=context.allowed_hosts)
    app.add_exception_handler(HedgerowError, _problem)
    app.add_exception_handler(RequestValidationError, _not_valid)
    return app


async def _problem(_request: Request, error: Exception) -> JSONResponse:
    status = 400
    if isinstance(error, AuthError):
        status = 403
    elif not isinstance(error, ConfigError | BudgetError):
        status = 503
    return JSONResponse({"detail": str(error)}, status)


async def _not_valid(_request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong and where, without what was sent: it may be no text, no number that JSON has, or a secret."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return JSONResponse({"detail": [{key: one[key] for key in ("type", "loc", "msg")} for one in found]}, 422)
