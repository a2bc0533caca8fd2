"""The server as a process: when it speaks, what it refuses, how it ends; and what a local user without a token gets."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.processes import ServerProcess, workplace

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.join.joining import join
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.simulations.processes.workplace import HEDGEROW

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("server")]
INTERNAL = (
    "/v1/control/",
    "/v1/control/runs",
    "/v1/runtime/",
    "/v1/runtime/x",
    "/docs",
    "/openapi.json",
    "/redoc",
)
TOKENLESS = (
    "/api/v1/devices",
    "/api/v1/jobs",
    "/api/v1/models",
    "/api/v1/events",
    "/metrics",
    "/api/v1/news",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with workplace(tmp_path_factory.mktemp("server")) as (_, process):
        process.start()
        yield process


@pytest.fixture(scope="module")
def device(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> AgentHome:
    home = tmp_path_factory.mktemp("device") / "home"
    join(server.token(), home, url=server.url, device="pump-1")
    return AgentHome(home)


def run_again(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HEDGEROW, "server", "run", "--home", str(home), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def as_device(server: ServerProcess, home: AgentHome) -> http.client.HTTPSConnection:
    """Return a connection that presents the device's certificate."""
    context = device_context(home.identity_files())
    context.check_hostname = False  # by address; the chain is checked, and the name in tests of the link
    host, _, port = server.url.removeprefix("https://").rpartition(":")
    return http.client.HTTPSConnection(host, int(port), context=context)


def test_it_speaks_once_both_listeners_answer(server: ServerProcess) -> None:
    assert server.client.get("devices") == []
    assert httpx.get(f"{server.url}/v1/device/ca", verify=False).status_code == 200


@pytest.mark.parametrize("path", TOKENLESS)
def test_a_local_user_without_a_token_reads_nothing(server: ServerProcess, path: str) -> None:
    answer = httpx.get(server.dashboard + path)

    assert answer.status_code == 401
    assert "devices" not in answer.json()


@pytest.mark.parametrize(
    "path",
    ["/api/v1/join-tokens", "/api/v1/jobs", "/api/v1/models/pump/rollback", "/api/v1/devices/pump-1/revoke"],
)
def test_a_local_user_without_a_token_does_nothing(server: ServerProcess, path: str) -> None:
    assert httpx.post(server.dashboard + path, json={}).status_code == 401


@pytest.mark.parametrize("path", INTERNAL)
def test_control_and_runtime_and_documents_have_no_listener(
    server: ServerProcess, device: AgentHome, path: str
) -> None:
    token = {"authorization": f"Bearer {server.operator_token.read_text().strip()}"}
    assert httpx.get(server.dashboard + path, headers=token).status_code == 404
    assert httpx.post(server.dashboard + path, headers=token).status_code == 404

    connection = as_device(server, device)
    for method in ("GET", "POST"):
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 404
    connection.close()


def test_the_operators_paths_are_not_on_the_gateway(server: ServerProcess, device: AgentHome) -> None:
    connection = as_device(server, device)
    connection.request("GET", "/api/v1/devices")

    assert connection.getresponse().status == 404
    connection.close()


def test_the_gateway_speaks_tls_only(server: ServerProcess) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(server.url.replace("https", "http") + "/v1/device/ca")


def test_a_second_server_on_the_folder_is_refused_and_the_first_goes_on(server: ServerProcess) -> None:
    before = (server.home / "run.json").read_bytes()
    second = run_again(server.home)

    assert second.returncode == 1
    assert "a server runs on this folder already" in second.stderr
    assert str(server.process.pid if server.process else "") in second.stderr
    assert "Traceback" not in second.stderr
    assert second.stdout == ""
    assert (server.home / "run.json").read_bytes() == before
    assert [d["device"] for d in server.client.get("devices")] in ([], ["pump-1"])


@pytest.mark.parametrize("taken", ["gateway_port", "operator_port"])
def test_a_taken_port_ends_it_with_a_reason_and_nothing_left_running(
    server: ServerProcess, tmp_path: Path, taken: str
) -> None:
    # A folder of its own with the settings of one whose ports are in use.
    shutil.copytree(
        server.home, tmp_path / "other", ignore=shutil.ignore_patterns("*.lock", "run.json", "*.db*")
    )
    port = {"gateway_port": server.url, "operator_port": server.dashboard}[taken].rpartition(":")[2]
    settings = {"gateway_port": "0", "operator_port": "0", taken: port}
    lines = (tmp_path / "other" / "server.toml").read_text().splitlines()
    kept = [line for line in lines if line.partition(" ")[0] not in settings]
    kept += [f"{key} = {value}" for key, value in settings.items()]
    (tmp_path / "other" / "server.toml").write_text("\n".join(kept))

    ended = run_again(tmp_path / "other")

    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert not (tmp_path / "other" / "run.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with workplace(tmp_path) as (_, process):
        process.start()
        note = json.loads((process.home / "run.json").read_bytes())
        assert process.dashboard.endswith(f":{note['operator_port']}")
        assert stat.S_IMODE((process.home / "run.json").stat().st_mode) == 0o600

        assert process.end(number) == 0

        assert not (process.home / "run.json").exists()
        assert "Traceback" not in process.log.read_text()
