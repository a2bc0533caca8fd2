"""Runs stock Flower as its command line does: a SuperLink, two SuperNodes and an app, insecure, on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from hedgerow.shared.errors import HedgerowError

_PROJECT = """\
[project]
name = "stockapp"
version = "1.0.0"
description = "the peer of a benchmark"
license = "Apache-2.0"
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "hedgerow"

[tool.flwr.app.components]
serverapp = "stockapp.server_app:app"
clientapp = "stockapp.client_app:app"

[tool.flwr.app.config]
values = 16
rounds = 3
out = ""
"""


class StockFlower:
    """A running SuperLink with two SuperNodes, in ``folder``; use ``stock_flower``."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._app = folder / "app"
        self._app.mkdir()
        shutil.copytree(
            Path(__file__).parent / "stockapp",
            self._app / "stockapp",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (self._app / "pyproject.toml").write_text(_PROJECT)
        self._address = f"127.0.0.1:{port}"

    def rounds_s(self, values: int, rounds: int, timeout_s: float = 300.0) -> list[float]:
        """Run ``rounds`` + 1 rounds of a model of ``values`` float32 and return how long each after the first took.

        Raises HedgerowError if the run does not finish in time.
        """
        out = self._folder / f"times-{values}-{time.monotonic_ns()}.json"
        self._start_run({"values": values, "rounds": rounds + 1, "out": str(out)})
        deadline = time.monotonic() + timeout_s
        while not out.exists():
            if time.monotonic() > deadline:
                log = (self._folder / "flower.log").read_text(errors="replace")
                raise HedgerowError(f"stock Flower did not finish its rounds: {log[-2000:]}")
            time.sleep(0.2)
        times = json.loads(out.read_text())
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    def _start_run(self, config: dict[str, int | str]) -> None:
        """Do what ``flwr run`` does: build the app's bundle and ask the SuperLink to start it.

        The command itself does not start where typer is older than 0.19, as an MQTT broker in the demo's extra wants it.
        """
        from flwr.cli.build import build_fab_from_disk
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.control.control_http_client import ControlHttpClient
        from flwr.supercore.fab import Fab
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        content = build_fab_from_disk(self._app)
        request = StartRunRequest(
            fab=fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {})),
            override_config=user_config_to_proto(dict(config)),
            federation="",
        )
        interceptors = [RuntimeVersionHttpInterceptor(component_name="flwr")]
        with ControlHttpClient.from_server_address(
            self._address, insecure=True, root_certificates=None, interceptors=interceptors
        ) as client:
            client.StartRun(request)


@contextlib.contextmanager
def stock_flower(folder: Path) -> Iterator[StockFlower]:
    """Start a SuperLink and two SuperNodes; both are ended afterwards, with what they started."""
    port, *node_ports = _free_ports(3)
    environment = {
        **os.environ,
        "FLWR_HOME": str(folder / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    stock = StockFlower(folder, port)
    link = [
        "--insecure",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--disable-runtime-dependency-installation",
    ]
    commands = [[_tool("flower-superlink"), *link]] + [
        [
            _tool("flower-supernode"),
            "--insecure",
            *("--superlink", f"127.0.0.1:{port}", "--host", "127.0.0.1", "--port", str(node_port)),
        ]
        for node_port in node_ports
    ]
    with contextlib.ExitStack() as stack, (folder / "flower.log").open("wb") as log:
        for index, command in enumerate(commands):
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            stack.callback(_end, process)
            if index == 0:
                _wait_healthy(port)
        time.sleep(8.0)
        yield stock


def _wait_healthy(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code < 500:
                return
        time.sleep(0.2)
    raise HedgerowError("the stock SuperLink did not start within a minute")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its session: SuperLink and SuperNode start others."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
