"""The agent at rest: its memory, the time from start to the first answer, the size of the base install.

One server, one broker, one agent that serves one int8 bundle on one engine, each a process of its own. The bundle is
packaged by the server's workbench from an untrained model; what is measured does not depend on its weights.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from hedgerow.edge_agent.slots.record import InstalledFile
from hedgerow.edge_agent.slots.slots import Slots
from hedgerow.models.pump.machine import Machine, draw_machine
from hedgerow.models.workbench.client import Workbench
from hedgerow.models.workbench.messages import PackageRequest
from hedgerow.server.cli.output import print_json, say
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.errors import ConfigError, TransportError
from hedgerow.shared.job import GateSpec, PrivacySpec
from hedgerow.shared.privacy.report import privacy_report
from hedgerow.shared.profile import DeviceProfile, read_profile
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.demo.sensors import time_of
from hedgerow.simulations.processes.broker import Broker
from hedgerow.simulations.processes.fleet import Agent, Server, wait_for
from hedgerow.simulations.processes.workplace import HEDGEROW, Workplace

PSS_WANTED_BYTES: Final = 85_000_000
START_WANTED_S: Final = 1.5
INSTALL_WANTED_BYTES: Final = 250_000_000
ROWS: Final = 2000
REST_S: Final = 5.0
ANSWER_S: Final = 30.0
MODEL: Final = "bench"


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures. Raises TransportError if the fleet does not come up."""
    folder = Path(tempfile.mkdtemp(prefix="hedgerow-bench-"))
    work = Workplace(folder)
    broker = Broker(folder / "broker")
    try:
        broker.start()
        found = _measure(work, broker, args.runtime, args.starts)
    finally:
        work.close()
        broker.close()
        shutil.rmtree(folder, ignore_errors=True)
    if args.install:
        found["install_bytes"] = _install_bytes()
        found["install_wanted_bytes"] = INSTALL_WANTED_BYTES
    return found


def _measure(work: Workplace, broker: Broker, runtime: str, starts: int) -> dict[str, Any]:
    text = (configs_folder() / "profiles" / "pump.toml").read_text(encoding="utf-8")
    profile_file = work.folder / "pump.toml"
    profile_file.write_text(f'runtimes = ["{runtime}"]\n{text}', encoding="utf-8")
    profile = read_profile(profile_file)
    server = Server(work)
    server.start()
    agent = Agent(work, server, broker, "bench-1", profile_file)
    agent.ingest("--csv", str(_recording(work.folder, profile)))
    bundle = work.folder / "bundle"
    asyncio.run(_package(bundle, profile))
    _install(agent, bundle)
    start_s = [_first_answer_s(work, agent, profile) for _ in range(starts)]
    pid = agent.start()
    wait_for(work, "the agent connects", lambda: bool(agent.status()["broker_connected"]), 30.0)
    time.sleep(REST_S)  # at rest means: after what starting up took has been given back
    status = agent.status()
    return {
        "bench": "agent",
        "runtime": runtime,
        "serving": status["bundles"][0]["state"] if status["bundles"] else "nothing",
        "pss_bytes": status["pss_bytes"],
        "pss_wanted_bytes": PSS_WANTED_BYTES,
        "rss_bytes": _resident_bytes(pid),
        "first_answer_p50_s": float(np.median(start_s)),
        "first_answer_max_s": max(start_s),
        "first_answer_wanted_s": START_WANTED_S,
        "starts": starts,
    }


def _resident_bytes(pid: int) -> int:
    """Return the resident set size, which counts pages shared with other processes in full."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _recording(folder: Path, profile: DeviceProfile) -> Path:
    if profile.csv is None:
        raise ConfigError("the pump profile has no [csv] table")
    path = folder / "recording.csv"
    rows = Machine(draw_machine(1), 1).rows(ROWS)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=profile.csv.separator)
        writer.writerow([profile.csv.timestamp, *(profile.csv.columns[name] for name in profile.channels)])
        writer.writerows([time_of(n).isoformat(), *row.tolist()] for n, row in enumerate(rows))
    return path


async def _package(folder: Path, profile: DeviceProfile) -> None:
    bench = Workbench(environment={"OMP_NUM_THREADS": "1"})
    recipe, parameters = "anomaly-autoencoder", {"rows": profile.window.length}
    try:
        request = PackageRequest(
            job_id="bench", job_name="bench", rounds=0, recipe=recipe, parameters=parameters,
            model=await bench.initial(recipe, parameters, 0), model_name=MODEL, version=1,
            privacy=privacy_report(PrivacySpec("none")), folder=str(folder), gate=GateSpec(min_agreement=0.0),
        )  # fmt: skip
        result = await bench.package(request)
    finally:
        await bench.close()
    if not result.accepted:
        raise TransportError(f"the untrained bundle was refused: {'; '.join(result.refusals)}")


def _install(agent: Agent, bundle: Path) -> None:
    slots = Slots(agent.home.slots, MODEL)
    digest = sha256_hex((bundle / "manifest.json").read_bytes())
    incoming = slots.prepare(digest)
    files = {}
    for path in bundle.iterdir():
        shutil.copyfile(path, incoming / path.name)
        files[path.name] = InstalledFile(path.stat().st_size, sha256_hex(path.read_bytes()))
    slots.seal(1, digest, files)
    slots.activate(digest)


def _first_answer_s(work: Workplace, agent: Agent, profile: DeviceProfile) -> float:
    """Start the agent, ask it until the model answers, stop it; return the seconds that the answer took."""
    window = Machine(draw_machine(1), 1).rows(profile.window.length).astype(np.float32)
    token_file, port_file = agent.home.api_token, agent.home.api_port_note
    began = time.perf_counter()
    process = subprocess.Popen(
        [*HEDGEROW, "agent", "run", "--home", str(agent.home.path)],
        stderr=(work.logs / "start.log").open("w", encoding="utf-8"),
    )
    try:
        while time.perf_counter() - began < ANSWER_S:
            try:
                answer = httpx.post(
                    f"http://127.0.0.1:{int(port_file.read_text())}/v1/predict",
                    json={"spec": profile.window.name, "data": window.tolist()},
                    headers={"authorization": f"Bearer {token_file.read_text().strip()}"},
                )
            except (OSError, ValueError, httpx.HTTPError):
                time.sleep(0.005)
                continue
            if answer.is_success and answer.json()["reason"] == "champion":
                return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()
    raise TransportError(f"no answer within {ANSWER_S:.0f} s: {work.tail('start')}")


def _install_bytes() -> int:
    """Install the base distribution into an empty folder and return what it takes there."""
    with tempfile.TemporaryDirectory(prefix="hedgerow-install-") as folder:
        source = Path(__file__).parents[4]
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--target",
            folder,
            str(source),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TransportError(f"the base install failed: {done.stderr[-500:]}")
        return sum(path.lstat().st_size for path in Path(folder).rglob("*") if path.is_file())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print it. Exit codes: 0 measured (met or not), 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="hedgerow bench agent",
        description=__doc__.splitlines()[0],
        epilog="example: hedgerow bench agent --runtime litert --json",
    )
    parser.add_argument(
        "--runtime", choices=("onnxruntime", "litert"), default="onnxruntime", help="the one engine"
    )
    parser.add_argument("--starts", type=int, default=5, help="cold starts to time (default 5)")
    parser.add_argument(
        "--install", action="store_true", help="also install the base distribution and weigh it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    args = parser.parse_args(argv)
    if not 1 <= args.starts <= 100:
        parser.error("--starts must be from 1 to 100")
    result = run(args)
    say(
        f"memory at rest   {result['pss_bytes'] / 1e6:.0f} MB PSS (wanted {PSS_WANTED_BYTES / 1e6:.0f}), {result['rss_bytes'] / 1e6:.0f} MB RSS"
    )
    say(
        f"first answer     {result['first_answer_p50_s']:.2f} s p50 of {args.starts} (wanted {START_WANTED_S})"
    )
    if args.install:
        say(
            f"base install     {result['install_bytes'] / 1e6:.0f} MB (wanted {INSTALL_WANTED_BYTES / 1e6:.0f})"
        )
    if args.json:
        print_json(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
