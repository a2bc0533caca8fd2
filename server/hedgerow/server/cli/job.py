"""``hedgerow job``: submit, watch, list, show and cancel training jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hedgerow.server.cli.client import OperatorClient
from hedgerow.server.cli.options import Home, Json, Token, Url
from hedgerow.server.cli.output import print_json, print_table, run_app, say
from hedgerow.server.dashboard.formats import number, size, when
from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError, TransportError

FINAL = frozenset({"delivered", "failed", "cancelled"})
app = typer.Typer(
    no_args_is_help=True,
    help="Submit, watch and list training jobs.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(epilog="Example: hedgerow job submit firmware_configs/jobs/pump-anomaly.toml --watch")
def submit(
    file: Annotated[Path, typer.Argument(help="The job, in TOML; or a scenario, of which the job is taken.")],
    watch_it: Annotated[bool, typer.Option("--watch", help="Then watch it to its end.")] = False,
    home: Home = None, url: Url = None, token: Token = None, json: Json = False,
) -> int:  # fmt: skip
    """Check a job file and queue it; prints the job's id."""
    try:
        data = file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (byte {error.start})") from error
    if len(data) > limits.MAX_TOML_BYTES:
        raise ConfigError(f"{file}: larger than {limits.MAX_TOML_BYTES} bytes")
    client = OperatorClient.find(home, url, token)
    answer = client.post("jobs", {"toml": text})
    if watch_it:
        return _watch(client, answer["job_id"], json)
    print_json(answer) if json else say(answer["job_id"])
    return 0


@app.command(epilog="Example: hedgerow job watch pump-anomaly-1")
def watch(job_id: str, home: Home = None, url: Url = None, token: Token = None, json: Json = False) -> int:
    """Follow a job round by round to its end; exit 1 if it failed or was cancelled."""
    return _watch(OperatorClient.find(home, url, token), job_id, json)


@app.command("list", epilog="Example: hedgerow job list --json")
def list_jobs(home: Home = None, url: Url = None, token: Token = None, json: Json = False) -> int:
    """List jobs, newest first."""
    jobs = OperatorClient.find(home, url, token).get("jobs")
    if json:
        print_json(jobs)
        return 0
    columns = ("job", "state", "recipe", "round", "privacy", "ε", "model", "submitted")
    print_table(columns, [_row(job) for job in jobs], "no job yet; submit one: hedgerow job submit FILE")
    return 0


@app.command(epilog="Example: hedgerow job show pump-anomaly-1")
def show(job_id: str, home: Home = None, url: Url = None, token: Token = None, json: Json = False) -> int:
    """Show one job with its rounds."""
    client = OperatorClient.find(home, url, token)
    job, rounds = client.get(f"jobs/{job_id}"), client.get(f"jobs/{job_id}/rounds")
    if json:
        print_json({"job": job, "rounds": rounds})
        return 0
    say(f"{job['name']} ({job['job_id']}): {job['state']} {job['reason']}".rstrip())
    for one in rounds:
        say(_round_line(job, one))
    return 0


@app.command(epilog="Example: hedgerow job cancel pump-anomaly-1")
def cancel(job_id: str, home: Home = None, url: Url = None, token: Token = None) -> int:
    """Stop a job; its committed rounds and its privacy spending stay."""
    OperatorClient.find(home, url, token).post(f"jobs/{job_id}/cancel")
    say(f"cancelled {job_id}")
    return 0


def main(arguments: list[str]) -> int:
    """Run ``hedgerow job``."""
    return run_app(app, "job", arguments)


def _watch(client: OperatorClient, job_id: str, as_json: bool) -> int:
    shown = 0
    try:
        for _topics in client.news():
            job, rounds = client.get(f"jobs/{job_id}"), client.get(f"jobs/{job_id}/rounds")
            for one in rounds[shown:]:
                print_json(one) if as_json else say(_round_line(job, one))
            shown = len(rounds)
            if job["state"] in FINAL:
                return _end(job, as_json)
    except KeyboardInterrupt:
        say(f"stopped watching; the job goes on. Again: hedgerow job watch {job_id}")
        return 130
    raise TransportError("the server closed the event stream")


def _end(job: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(job)
    else:
        version = f", {job['model']} version {job['model_version']}" if job["model_version"] else ""
        say(f"{job['name']}: {job['state']} {job['reason']}".rstrip() + version)
    return 0 if job["state"] == "delivered" else 1


def _round_line(job: dict[str, Any], one: dict[str, Any]) -> str:
    parts = [
        f"round {one['round']}/{job['rounds']}",
        "counts withheld" if one["drawn"] is None else f"{one['replied']}/{one['drawn']} devices",
        f"{one['duration_s']:.2f} s",
    ]
    if one["bytes_up"] is not None:
        parts.append(f"{size(one['bytes_up'])} up, {size(one['bytes_down'])} down")
    if job["metric"] in one["scores"]:
        parts.append(f"{job['metric']} {number(one['scores'][job['metric']], 4)}")
    if one["epsilon"] is not None:
        parts.append(f"ε {number(one['epsilon'])}")
    if one["reasons"]:
        parts.append(
            "rejected: " + ", ".join(f"{reason} {count}" for reason, count in one["reasons"].items())
        )
    return "  ".join(parts)


def _row(job: dict[str, Any]) -> list[str]:
    model = f"{job['model']} v{job['model_version']}" if job["model_version"] else "–"
    epsilon = "∞" if job["mode"] == "none" else number(job["epsilon"])
    progress = f"{job['round']}/{job['rounds']}"
    return [
        job["job_id"],
        job["state"],
        job["recipe"],
        progress,
        job["mode"],
        epsilon,
        model,
        when(job["submitted_us"]),
    ]
