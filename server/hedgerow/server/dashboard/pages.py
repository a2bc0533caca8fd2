"""What each page shows, from views to template values: no HTML, no HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hedgerow.server.dashboard.charts import LineChart, line_chart
from hedgerow.server.monitor.views import AlertView, JobView, Reader, RoundView
from hedgerow.shared.job import CENTRAL_MODES

Alerts = Callable[[], list[AlertView]]


def overview(reader: Reader, alerts: Alerts) -> dict[str, Any]:
    """Return the fleet strip, the running or newest job, the newest rollout, alerts and events."""
    devices = reader.devices()
    jobs = reader.jobs(10)
    current = next((job for job in jobs if job.state == "running"), jobs[0] if jobs else None)
    rollouts = reader.rollouts(1)
    return {
        "statuses": Counter(device.status for device in devices),
        "devices": devices,
        "job": current,
        "charts": job_charts(current, reader.rounds(current.job_id)) if current else [],
        "rollout": rollouts[0] if rollouts else None,
        "alerts": alerts(),
        "events": reader.events(20),
    }


def fleet(reader: Reader, _alerts: Alerts) -> dict[str, Any]:
    """Return every device."""
    return {"devices": reader.devices()}


def jobs(reader: Reader, _alerts: Alerts) -> dict[str, Any]:
    """Return all jobs, newest first."""
    return {"jobs": reader.jobs()}


def job(reader: Reader, _alerts: Alerts, job_id: str) -> dict[str, Any] | None:
    """Return one job with its rounds and curves; None if there is no such job."""
    found = reader.job(job_id)
    if found is None:
        return None
    rounds = reader.rounds(job_id)
    return {"job": found, "rounds": rounds[::-1][:200], "charts": job_charts(found, rounds)}


def models(reader: Reader, _alerts: Alerts) -> dict[str, Any]:
    """Return registered versions and rollouts."""
    return {"models": reader.models(), "rollouts": reader.rollouts()}


def job_charts(job: JobView, rounds: list[RoundView]) -> list[LineChart]:
    """Return the curves of a job that have data: the server's score, ε where there is one."""
    scored = [(float(r.round), r.scores[job.metric]) for r in rounds if job.metric in r.scores]
    spent = [(float(r.round), r.epsilon) for r in rounds if r.epsilon is not None]
    drawn = [
        line_chart(
            f"{job.metric} on the public set, by round", [x for x, _ in scored], [y for _, y in scored]
        ),
        line_chart(
            "ε charged to every device, by round"
            if job.mode in CENTRAL_MODES
            else "ε that devices answer for, the largest, by round",
            [x for x, _ in spent],
            [y for _, y in spent],
            floor=0.0,
        ),
    ]
    return [chart for chart in drawn if chart is not None]
