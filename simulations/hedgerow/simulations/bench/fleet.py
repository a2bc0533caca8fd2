"""``hedgerow bench fleet``: a real server with a thousand devices that heartbeat, poll, and play a federated round.

The server is a process as anybody starts it. Devices are thin: threads of two processes, each with a key, a certificate and
three TLS connections of its own; they answer rounds with random updates, at a lower priority than the server's. They are let in by the server's own enrolment
before it starts, without the requests over HTTP (which it takes four at a time): joining is not what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hedgerow.edge_agent.join.identity import signing_request
from hedgerow.server.app.home import ServerHome
from hedgerow.server.bus import Bus
from hedgerow.server.fleet import Fleet
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.pki.certificates import new_key
from hedgerow.server.store.database import Database
from hedgerow.shared.errors import HedgerowError, TransportError
from hedgerow.shared.join_token import JoinToken
from hedgerow.shared.messages import JoinRequest
from hedgerow.simulations.bench.thin_devices import Measured
from hedgerow.simulations.processes.fleet import Server
from hedgerow.simulations.processes.workplace import Workplace

DRIVERS: Final = 2
LOOK_S: Final = 0.2
CONNECT_S: Final = 300.0
ROUNDS_S: Final = 900.0
RECIPE: Final = "digits-cnn"
JOB: Final = """
name = "scale"
recipe = "{recipe}"
rounds = {rounds}
[privacy]
mode = "none"
[cohort]
quorum = {quorum}
[deadlines]
round_s = 600.0
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(
        prog="hedgerow bench fleet",
        description=__doc__.splitlines()[0],
        epilog="example: hedgerow bench fleet --devices 1000 --json",
    )
    options.add_argument("--devices", type=int, default=1000, help="thin devices (default 1000)")
    options.add_argument(
        "--rounds", type=int, default=2, help="federated rounds with all of them (default 2)"
    )
    options.add_argument(
        "--interval", type=float, default=10.0, help="seconds between heartbeats (default 10)"
    )
    options.add_argument(
        "--rest", type=float, default=20.0, help="seconds at rest before the job (default 20)"
    )
    options.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    return options


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was measured. Raises TransportError if devices do not come, or the rounds do not end."""
    with tempfile.TemporaryDirectory(prefix="hedgerow-bench-") as name:
        folder = Path(name)
        work = Workplace(folder)
        drivers: list[subprocess.Popen[str]] = []
        memory: Memory | None = None
        try:
            server = Server(work)
            began = time.monotonic()
            folders = enrol(server.home, folder / "devices", args.devices)
            enrolled_s = time.monotonic() - began
            server.start()
            memory = Memory(server.process.pid if server.process else 0)
            drivers += [
                _driver(server.url, folders[n::DRIVERS], args.interval, folder) for n in range(DRIVERS)
            ]
            result = _measure(server, memory, drivers, args)
            measured = [_collect(driver) for driver in drivers]
        finally:
            if memory is not None:
                memory.close()
            for driver in drivers:
                driver.kill()
                driver.wait()
            work.close()
        return (
            {"bench": "fleet", "devices": args.devices, "enrolled_s": round(enrolled_s, 1)}
            | _seen(measured, result.pop("span_s"))
            | result
        )


def enrol(home: Path, folder: Path, count: int) -> list[Path]:
    """Let ``count`` devices into the fleet of a server that does not run, each by a token; return their folders."""
    place = ServerHome(home)
    authority = CertificateAuthority.load(place.pki)
    database = Database(place.database_url(place.read_config()))
    try:
        fleet = Fleet(database, Bus(), authority, tuf_root=lambda: "{}")
        return [_join(fleet, authority, folder / f"thin-{n}") for n in range(count)]
    finally:
        database.close()


def _join(fleet: Fleet, authority: CertificateAuthority, home: Path) -> Path:
    token: JoinToken = fleet.tokens.issue()
    key = new_key()
    request = JoinRequest(token.id, token.secret, home.name, signing_request(key, home.name), "thin")
    answer = fleet.enrolment.join(request)
    home.mkdir(parents=True)
    (home / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (home / "cert.pem").write_text(answer.certificate_pem)
    (home / "ca.pem").write_text(authority.pem)
    return home


def _driver(url: str, folders: Sequence[Path], interval_s: float, where: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "hedgerow.simulations.bench.thin_devices",
        "--url",
        url,
        "--recipe",
        RECIPE,
    ]
    command += ["--interval", str(interval_s), *map(str, folders)]
    with (where / "drivers.log").open("a") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def _collect(driver: subprocess.Popen[str]) -> Measured:
    said, _ = driver.communicate("", timeout=120)
    return msgspec.json.decode(said, type=Measured)


def _measure(
    server: Server, memory: Memory, drivers: Sequence[subprocess.Popen[str]], args: argparse.Namespace
) -> dict[str, Any]:
    calls = Calls(server)
    began = time.monotonic()

    def all_online() -> bool:
        found = calls.get("devices")
        return bool(sum(one["status"] == "online" for one in found) == args.devices)

    _wait("all devices online", all_online, CONNECT_S)
    online = time.monotonic()
    calls.clear()
    _rest(calls, args.rest)
    resting = {"rest": calls.figures(), "rest_memory": memory.figures()}
    calls.clear()
    job = JOB.format(recipe=RECIPE, rounds=args.rounds, quorum=args.devices)
    job_id = server.client.post("jobs", {"toml": job})["job_id"]
    submitted, cpu_s, devices_s = time.monotonic(), memory.cpu_s(), _cpu_s(drivers)

    def played() -> bool:
        calls.get("devices")
        calls.get(f"jobs/{job_id}/rounds", "rounds")
        found = calls.get(f"jobs/{job_id}", "job")
        if found["state"] in ("failed", "cancelled"):
            raise TransportError(f"job {job_id} {found['state']}: {found['reason']}")
        return bool(found["round"] >= args.rounds)

    _wait("all rounds", played, ROUNDS_S)
    ended = time.monotonic()
    spent_s, devices_s = memory.cpu_s() - cpu_s, _cpu_s(drivers) - devices_s
    rounds = server.client.get(f"jobs/{job_id}/rounds")
    return {
        "online_s": round(online - began, 1),
        "rounds_s": round(ended - submitted, 1),
        "server_cpu_s": round(spent_s, 1),
        "devices_cpu_s": round(devices_s, 1),
        "span_s": (online, submitted, ended),
        "rounds": [
            {
                name: one[name]
                for name in ("round", "drawn", "replied", "rejected", "dropped", "bytes_up", "bytes_down")
            }
            | {"duration_s": round(one["duration_s"], 2)}
            for one in rounds
        ],
        "in_rounds": calls.figures(),
        "in_rounds_memory": memory.figures(),
        "load": [round(value, 1) for value in os.getloadavg()],
        **resting,
    }


def _cpu_s(processes: Sequence[subprocess.Popen[str]]) -> float:
    times = [psutil.Process(one.pid).cpu_times() for one in processes]
    return float(sum(one.user + one.system for one in times))


def _rest(calls: Calls, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        calls.get("devices")
        calls.get("jobs")
        calls.get("alerts")
        time.sleep(LOOK_S)


def _wait(what: str, done: Callable[[], bool], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise TransportError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(LOOK_S)


class Calls:
    """Operator calls, timed by name."""

    def __init__(self, server: Server) -> None:
        self._client = server.client
        self._took: dict[str, list[float]] = {}
        self.failures = 0

    def get(self, path: str, name: str = "") -> Any:
        """Return a read's answer; one that fails is counted, and tried once more."""
        began = time.monotonic()
        try:
            found = self._client.get(path)
        except TransportError:
            self.failures += 1
            found = self._client.get(path)
        self._took.setdefault(name or path, []).append(time.monotonic() - began)
        return found

    def clear(self) -> None:
        """Forget what was timed so far."""
        self._took.clear()

    def figures(self) -> dict[str, Any]:
        """Return the percentiles of each call in ms, and how many failed at all."""
        return {name: percentiles(times) for name, times in self._took.items()} | {"failures": self.failures}


class Memory:
    """The server's memory with its children's, looked at each second until ``close``."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._peak = (0, 0)
        self._last = (0, 0)
        self._thread = threading.Thread(target=self._run, name="bench-memory", daemon=True)
        self._thread.start()

    def figures(self) -> dict[str, float]:
        """Return PSS and RSS in MB of the server alone: the last and the highest."""
        names = ("pss_mb", "rss_mb")
        last = dict(zip(names, self._last, strict=True))
        peak = {f"peak_{name}": value for name, value in zip(names, self._peak, strict=True)}
        return {name: round(value / 1e6, 1) for name, value in (last | peak).items()}

    def cpu_s(self) -> float:
        """Return the processor time that the server took so far."""
        found = self._process.cpu_times()
        return float(found.user + found.system)

    def close(self) -> None:
        """End looking."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            try:
                found = self._process.memory_full_info()
            except psutil.Error:
                return
            self._last = (int(found.pss), int(found.rss))
            self._peak = (max(self._peak[0], found.pss), max(self._peak[1], found.rss))


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return count, p50, p95, p99 and the largest of latencies, in ms."""
    ordered = sorted(seconds)
    if not ordered:
        return {"n": 0}
    at = {
        f"p{share}_ms": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 95, 99)
    }
    return {"n": len(ordered)} | {
        name: round(1e3 * s, 1) for name, s in (at | {"max_ms": ordered[-1]}).items()
    }


def _seen(measured: Sequence[Measured], span_s: tuple[float, float, float]) -> dict[str, Any]:
    failures: dict[str, int] = {}
    for one in measured:
        for name, count in one.failures.items():
            failures[name] = failures.get(name, 0) + count
    online, submitted, ended = span_s
    beats = [beat for one in measured for beat in one.heartbeats]
    spans = {"rest": (online, submitted), "in_rounds": (submitted, ended)}
    chosen = {when: [b for b in beats if begin <= b[0] < end] for when, (begin, end) in spans.items()}
    return {
        "heartbeats": {when: percentiles([b[1] for b in found]) for when, found in chosen.items()},
        "sent_late": {when: percentiles([b[2] for b in found]) for when, found in chosen.items()},
        "answered": sum(one.answered for one in measured),
        "failures": failures,
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as lines for a person."""
    lines = [
        f"{result['devices']} devices: enrolled in {result['enrolled_s']} s (in the server's folder, not over HTTP), "
        f"online {result['online_s']} s after its start",
        f"{'':<22}{'n':>8}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'max ms':>10}",
    ]
    for when in ("rest", "in_rounds"):
        lines.append(_line(f"{when.replace('_', ' ')}: heartbeat", result["heartbeats"][when]))
        lines.append(_line("  sent late by", result["sent_late"][when]))
        lines += [
            _line(f"{when.replace('_', ' ')}: {k}", v) for k, v in result[when].items() if isinstance(v, dict)
        ]
    for one in result["rounds"]:
        lines.append(f"round {one['round']}: {one['replied']} of {one['drawn']} in {one['duration_s']} s")
    for when in ("rest", "in_rounds"):
        found = result[f"{when}_memory"]
        lines.append(
            f"server, {when.replace('_', ' ')}: PSS {found['pss_mb']} MB, highest {found['peak_pss_mb']} MB"
        )
    lines.append(
        f"processor time in {result['rounds_s']} s of rounds, with the job's start: "
        f"the server {result['server_cpu_s']} s, the devices {result['devices_cpu_s']} s"
    )
    lines.append(f"failures: {result['failures'] or 'none'}; machine's load {result['load']}")
    return "\n".join(lines)


def _line(name: str, found: dict[str, float]) -> str:
    return f"{name:<22}{found['n']:>8}" + "".join(
        f"{found.get(f'{key}_ms', float('nan')):>10.1f}" for key in ("p50", "p95", "p99", "max")
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it. Exit codes: 0 measured, 1 something failed, 2 wrong usage."""
    options = parser()
    args = options.parse_args(argv)
    if not 2 <= args.devices <= 1300 or not 1 <= args.rounds <= 1000 or not 0.5 <= args.interval <= 600:
        options.error(
            "--devices from 2 to 1300 (three connections each), --rounds 1 to 1000, --interval 0.5 to 600 s"
        )
    try:
        result = run(args)
    except HedgerowError as error:
        sys.stderr.write(f"hedgerow bench fleet: {error}\n")
        return 1
    sys.stdout.write(table(result) + "\n")
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
