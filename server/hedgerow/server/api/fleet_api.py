"""The fleet API, version 1: what integrators read and operators do, with OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from hedgerow.server.api import models
from hedgerow.server.api.access import caller, context_of, role
from hedgerow.server.api.operators import Operator, Role
from hedgerow.server.dashboard.live import stream
from hedgerow.server.monitor import views
from hedgerow.server.monitor.metrics import FleetCollector, render
from hedgerow.shared import limits

_VIEWER = Depends(role(Role.VIEWER))
_OPERATOR = Depends(role(Role.OPERATOR))
_ADMIN = Depends(role(Role.ADMIN))
_PROBLEMS: dict[int | str, dict[str, Any]] = {n: {"model": models.Problem} for n in (400, 401, 403, 404)}

router = APIRouter(prefix="/api/v1", responses=_PROBLEMS, dependencies=[Depends(caller)])


@router.get("/devices", response_model=models.many(views.DeviceView), tags=["fleet"], dependencies=[_VIEWER])
async def devices(request: Request) -> Any:
    """List devices with health, desired and reported versions."""
    reader = context_of(request).reader
    # Written in the thread too, as it is: to check a thousand views first holds up every device for 8 ms.
    written = await asyncio.to_thread(lambda: msgspec.json.encode(reader.devices()))
    return Response(written, media_type="application/json")


@router.post("/devices/{device}/revoke", status_code=204, tags=["fleet"])
async def revoke(request: Request, device: str, operator: Annotated[Operator, _ADMIN]) -> Response:
    """Shut a device out: its certificate and its Flower node stop counting at once."""
    context = context_of(request)
    await context.actions.revoke_device(device)
    context.audit.record(operator, "device.revoke", device)
    return Response(status_code=204)


@router.post("/join-tokens", response_model=models.JoinToken, tags=["fleet"])
async def join_token(
    request: Request, wanted: models.TokenRequest, operator: Annotated[Operator, _OPERATOR]
) -> Any:
    """Make a one-use token with which a device joins."""
    context = context_of(request)
    token = await context.actions.join_token(wanted.groups, wanted.ttl_s)
    context.audit.record(operator, "join-token.create", ",".join(wanted.groups) or "no group")
    return {"token": token}


@router.get("/jobs", response_model=models.many(views.JobView), tags=["jobs"], dependencies=[_VIEWER])
async def jobs(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Any:
    """List jobs, newest first."""
    return _plain(await asyncio.to_thread(context_of(request).reader.jobs, limit))


@router.post("/jobs", response_model=models.Submitted, status_code=201, tags=["jobs"])
async def submit(
    request: Request, job: models.JobSubmission, operator: Annotated[Operator, _OPERATOR]
) -> Any:
    """Submit a job; refused with the key and the remedy if anything about it is wrong."""
    context = context_of(request)
    job_id = await context.actions.submit_job(job.toml)
    context.audit.record(operator, "job.submit", job_id, job.toml)
    return {"job_id": job_id}


@router.get("/jobs/{job_id}", response_model=models.one(views.JobView), tags=["jobs"], dependencies=[_VIEWER])
async def job(request: Request, job_id: str) -> Any:
    """Show one job."""
    return msgspec.to_builtins(await _found(request, job_id))


@router.post("/jobs/{job_id}/cancel", status_code=204, tags=["jobs"])
async def cancel(request: Request, job_id: str, operator: Annotated[Operator, _OPERATOR]) -> Response:
    """Stop a job; its committed rounds and its privacy spending stay."""
    context = context_of(request)
    await context.actions.cancel_job(job_id)
    context.audit.record(operator, "job.cancel", job_id)
    return Response(status_code=204)


@router.get(
    "/jobs/{job_id}/rounds",
    response_model=models.many(views.RoundView),
    tags=["jobs"],
    dependencies=[_VIEWER],
)
async def rounds(request: Request, job_id: str) -> Any:
    """List a job's committed rounds in order."""
    await _found(request, job_id)
    return _plain(await asyncio.to_thread(context_of(request).reader.rounds, job_id))


@router.get("/jobs/{job_id}/rounds/{number}/cohort", response_model=models.Cohort, tags=["jobs"])
async def cohort(
    request: Request,
    job_id: str,
    number: Annotated[int, Path(ge=1, le=limits.MAX_ROUNDS)],
    operator: Annotated[Operator, _ADMIN],
) -> Any:
    """Tell who was drawn into a round; audited, because sampling claims do not hold against who reads it."""
    context = context_of(request)
    drawn = await context.actions.cohort(job_id, number)
    context.audit.record(operator, "cohort.read", f"{job_id} round {number}")
    return {"devices": drawn}


@router.get("/models", response_model=models.many(views.ModelView), tags=["models"], dependencies=[_VIEWER])
async def model_versions(request: Request) -> Any:
    """List registered versions with aliases, gate and scores."""
    return _plain(await asyncio.to_thread(context_of(request).reader.models))


@router.post("/models/{model}/rollback", response_model=dict[str, str], tags=["models"])
async def rollback(request: Request, model: str, operator: Annotated[Operator, _OPERATOR]) -> Any:
    """Send every device back to the previous version."""
    context = context_of(request)
    rollout = await context.actions.rollback(model)
    context.audit.record(operator, "model.rollback", model, rollout)
    return {"rollout_id": rollout}


@router.get(
    "/rollouts", response_model=models.many(views.RolloutView), tags=["models"], dependencies=[_VIEWER]
)
async def rollouts(request: Request) -> Any:
    """List rollouts with devices by state."""
    return _plain(await asyncio.to_thread(context_of(request).reader.rollouts))


@router.get("/events", response_model=models.many(views.EventView), tags=["events"], dependencies=[_VIEWER])
async def events(
    request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 200, device: str | None = None
) -> Any:
    """List device events, newest first."""
    return _plain(await asyncio.to_thread(context_of(request).reader.events, limit, device))


@router.get("/alerts", response_model=models.many(views.AlertView), tags=["events"], dependencies=[_VIEWER])
async def alerts(request: Request) -> Any:
    """List the alerts that hold now."""
    return _plain(await asyncio.to_thread(context_of(request).alerts))


@router.get("/news", tags=["events"])
async def news(request: Request, operator: Annotated[Operator, _VIEWER]) -> StreamingResponse:
    """Stream server-sent events: the topics that have news, so that a client knows what to fetch again."""
    context = context_of(request)
    events = stream(context.bus, lambda: context.operators.is_valid(operator.token_id))
    return StreamingResponse(events, media_type="text/event-stream")


metrics_router = APIRouter()


@metrics_router.get("/metrics", tags=["metrics"], dependencies=[_VIEWER], responses=_PROBLEMS)
async def metrics(request: Request) -> Response:
    """Answer Prometheus; the scraper sends an operator token of role viewer as its bearer token."""
    context = context_of(request)
    text = await asyncio.to_thread(lambda: render(FleetCollector(context.reader, context.alerts)))
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _found(request: Request, job_id: str) -> msgspec.Struct:
    found = await asyncio.to_thread(context_of(request).reader.job, job_id)
    if found is None:
        raise HTTPException(404, f"no job {job_id!r}; see GET /api/v1/jobs")
    return found


def _plain(found: Sequence[msgspec.Struct]) -> Any:
    return [msgspec.to_builtins(view) for view in found]
