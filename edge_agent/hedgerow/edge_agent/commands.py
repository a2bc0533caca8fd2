"""The agent's commands beside ``run``: join, status, predict, ingest, flower-proxy, egress."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import typer

from hedgerow.edge_agent.cli import default_home
from hedgerow.edge_agent.config import MqttConfig, read_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.shared.errors import ConfigError, TransportError
from hedgerow.shared.profile import DeviceProfile, read_profile
from hedgerow.shared.unreadable import UNREADABLE

app = typer.Typer(
    no_args_is_help=True,
    help="Join a fleet, run the device daemon (hedgerow agent run), ask it.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Home = Annotated[
    Path | None, typer.Option(help="The device's folder (default: HEDGEROW_HOME or /var/lib/hedgerow).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
API_TIMEOUT_S = 30.0


@app.command(
    epilog="Example: hedgerow agent join hrj1.… --profile firmware_configs/profiles/raspberry-pi-5.toml"
)
def join(
    token: Annotated[str, typer.Argument(help="The one-use token of `hedgerow server token`.")],
    *,
    url: Annotated[
        str | None, typer.Option(help="The server's address; without it, it is looked for nearby.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="This device's name (default: the host's).")] = None,
    profile: Annotated[Path | None, typer.Option(help="Profile to copy into the device's folder.")] = None,
    broker: Annotated[
        str, typer.Option(help="The MQTT broker that the sensors publish to.")
    ] = "mqtt://127.0.0.1:1883",
    again: Annotated[
        bool, typer.Option("--again", help="Join anew; samples and privacy ledger stay.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Make this device part of a fleet: its key is made here, its certificate comes from the server."""
    from hedgerow.edge_agent.join.joining import join as join_fleet

    folder = home or default_home()
    if profile is not None:
        read_profile(profile)
    say = (lambda _text: None) if json else _say
    joined = join_fleet(
        token, folder, url=url, device=device, mqtt=MqttConfig(url=broker), again=again, say=say
    )
    if profile is not None:
        shutil.copyfile(profile, AgentHome(folder).profile)
    if json:
        _print(joined)
        return 0
    _say(f"{joined.device} belongs to the fleet of {joined.server_url}")
    if not AgentHome(folder).profile.exists():
        _say(f"next: put the device's profile at {AgentHome(folder).profile}")
    _say(f"then: hedgerow agent run --home {folder}")
    return 0


@app.command(epilog="Example: hedgerow agent status --json")
def status(*, home: Home = None, json: Json = False) -> int:
    """Show how the running agent stands."""
    found = _ask(home or default_home(), "GET", "/v1/status").json()
    if json:
        _print(found)
        return 0
    server, telemetry = found["server"], found["telemetry"]
    link = "connected" if server["connected"] else f"down for {server['down_s']:.0f} s: {server['reason']}"
    broker = f"connected, MQTT {found['broker_version']}" if found["broker_connected"] else "not connected"
    _say(
        f"{found['device']}: profile {found['profile']} v{found['profile_version']}, up {found['uptime_s']:.0f} s"
    )
    _say(f"  server     {link}")
    _say(f"  broker     {broker}")
    _say(f"  readings   {telemetry['readings']} taken, {telemetry['quarantined']} messages in quarantine")
    _say("  samples    " + (", ".join(f"{n} {name}" for name, n in found["samples"].items()) or "none"))
    for bundle in found["bundles"]:
        _say(
            f"  model      {bundle['model']} v{bundle['version']} {bundle['state']} {bundle['runtime']} "
            f"{bundle['precision']} {bundle['reason']}".rstrip()
        )
    _say(f"  inference  {found['inferences_total']} answers, {found['alarms_total']} alarms")
    _say(f"  memory     {found['pss_bytes'] / 1e6:.0f} MB, trainer {found['trainer']}")
    return 0


@app.command(epilog="Example: hedgerow agent predict --spec window < window.json")
def predict(
    *,
    spec: Annotated[str, typer.Option(help="Name of the tensor, as in the profile.")] = "window",
    file: Annotated[
        Path | None, typer.Option(help="JSON file with the nested list; default standard input.")
    ] = None,
    home: Home = None,
) -> int:
    """Ask the running agent about one sample, given as a nested JSON list; prints the answer as JSON."""
    try:
        text = sys.stdin.buffer.read() if file is None else file.read_bytes()
        data = msgspec.json.decode(text)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UNREADABLE as error:
        raise ConfigError(f"{file or 'standard input'}: not JSON: {error}") from error
    _print(_ask(home or default_home(), "POST", "/v1/predict", {"spec": spec, "data": data}).json())
    return 0


@app.command(epilog="Example: hedgerow agent ingest --csv first-day.csv")
def ingest(
    *,
    csv: Annotated[
        list[Path] | None, typer.Option(help="Recording to take in by the profile's [csv]; repeat.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Stop each recording after this many rows.")] = None,
    arrays: Annotated[Path | None, typer.Option(help="NumPy archive (.npz) with samples and labels.")] = None,
    spec: Annotated[str | None, typer.Option(help="Tensor of the profile that the archive holds.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Take in recordings and images through the live path's rules; the agent need not run."""
    from hedgerow.edge_agent.samples.ingest import ingest_arrays, ingest_csv
    from hedgerow.edge_agent.samples.store import SampleStore

    place = AgentHome(home or default_home())
    profile = _profile_of(place)
    if not csv and arrays is None:
        raise ConfigError("name what to take in: --csv FILE or --arrays FILE --spec NAME")
    store = SampleStore(place.samples, max_bytes=profile.store.max_bytes, max_age_s=profile.store.max_age_s)
    try:
        done = []
        if csv:
            done.append(ingest_csv(profile, csv, store, first_rows=rows))
        if arrays is not None:
            wanted = next((tensor for tensor in profile.tensor if tensor.name == spec), None)
            if wanted is None:
                names = ", ".join(tensor.name for tensor in profile.tensor) or "none"
                raise ConfigError(f"--spec: the profile's tensors are {names}, not {spec!r}")
            done.append(ingest_arrays(arrays, wanted, store))
    finally:
        store.close()
    for one in done:
        _print(one) if json else _say(
            f"{one.rows} rows, {one.samples} new samples; {one.counts or 'nothing refused'}"
        )
    return 0


@app.command("flower-proxy", epilog="Example: hedgerow agent flower-proxy --port 9092")
def flower_proxy(
    *,
    port: Annotated[int, typer.Option(help="Loopback port for the SuperNode; 0 takes a free one.")] = 9092,
    home: Home = None,
) -> int:
    """Let a stock flower-supernode on this device join with the device's own identity (loopback to mutual TLS)."""
    from hedgerow.edge_agent.flower_proxy import FlowerProxy

    place = AgentHome(home or default_home())
    config = read_config(place.config)
    proxy = FlowerProxy(config.server_url, place.identity_files(), place.path / "flower-proxy", port=port)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    proxy.start()
    try:
        _say(f"listening on {proxy.address}; start the SuperNode with:")
        _say("  flower-supernode " + " ".join(proxy.arguments))
        stop.wait()
    finally:
        proxy.stop()
    return 0


@app.command(epilog="Example: hedgerow agent egress --json")
def egress(*, json: Json = False) -> int:
    """List every field that may ever leave a device."""
    from hedgerow.edge_agent.egress import egress_statement

    statement = egress_statement()
    _print(statement) if json else _say(_as_text(statement))
    return 0


def main(arguments: list[str]) -> int:
    """Run the commands; exit codes as ``hedgerow --help`` says."""
    try:
        result = app(args=arguments, prog_name="hedgerow agent", standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except typer.Abort:
        return 130
    except Exception as error:  # typer raises click's usage errors, which know how to show themselves
        show: Callable[[], None] | None = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", 2))
    return result if isinstance(result, int) else 0


def _profile_of(place: AgentHome) -> DeviceProfile:
    if not place.joined():
        return read_profile(place.profile)
    return read_profile(place.path / read_config(place.config).profile)


def _ask(folder: Path, method: str, path: str, body: Any = None) -> httpx.Response:
    place = AgentHome(folder)
    port = read_config(place.config).api_port or _noted_port(place)
    try:
        token = place.api_token.read_text().strip()
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{port}{path}",
            json=body,
            headers={"authorization": f"Bearer {token}"},
            timeout=API_TIMEOUT_S,
        )
    except OSError as error:
        raise ConfigError(f"{place.api_token}: {error.strerror}; has this agent ever run?") from error
    except httpx.HTTPError as error:
        raise TransportError(
            f"the agent of {folder} does not answer ({error}); is 'hedgerow agent run' up?"
        ) from error
    if not answer.is_success:
        raise ConfigError(f"the agent answered: {answer.text[:500]}")
    return answer


def _noted_port(place: AgentHome) -> int:
    try:
        return int(place.api_port_note.read_text())
    except (OSError, ValueError) as error:
        raise TransportError(
            f"the agent of {place.path} does not run (no {place.api_port_note.name})"
        ) from error


def _as_text(statement: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(statement), indent=2).decode()


def _print(value: Any) -> None:
    _say(msgspec.json.encode(value).decode())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
