"""``hedgerow server``: set a server up, run it, hand out tokens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from hedgerow.server.app.claim import claim
from hedgerow.server.app.home import ServerConfig, ServerHome
from hedgerow.server.cli.client import default_home
from hedgerow.server.cli.options import Home, Json
from hedgerow.server.cli.output import print_json, run_app, say
from hedgerow.shared.errors import ConfigError, TransportError

app = typer.Typer(
    no_args_is_help=True,
    help="Set up and run the aggregation server.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
STOP_DEADLINE_S = 30.0
LOG_LEVELS = ("debug", "info", "warning", "error")
_log = logging.getLogger(__name__)


@app.command(epilog="Example: hedgerow server init --host fleet.example.org --host 192.168.1.10")
def init(
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which devices reach this server; repeat for more."),
    ] = None,
    gateway_port: Annotated[int, typer.Option(help="Port of the device gateway; 0 takes a free one.")] = 8443,
    operator_port: Annotated[
        int, typer.Option(help="Port of dashboard and fleet API; 0 takes a free one.")
    ] = 8080,
    gateway_host: Annotated[str, typer.Option(help="Address the gateway listens on.")] = "0.0.0.0",  # noqa: S104
    advertise: Annotated[bool, typer.Option(help="Announce the server on the local network.")] = True,
    home: Home = None,
    json: Json = False,
) -> int:
    """Make a server's folder: certificate authority, signing keys, database, settings, an operator token."""
    from hedgerow.server.app.setup import set_up

    root = home or default_home()
    made = set_up(
        root,
        tuple(host or ()),
        gateway_host=gateway_host,
        gateway_port=gateway_port,
        operator_port=operator_port,
        advertise=advertise,
    )
    if json:
        print_json({"home": str(root), "operator_token_file": str(made.operator_token)})
        return 0
    say(f"made a server in {root}")
    say(f"  settings        {made.config}")
    say(f"  operator token  {made.operator_token} (sign in to the dashboard with it)")
    say(f"next: hedgerow server run --home {root}")
    return 0


@app.command(epilog="Example: hedgerow server run")
def run(
    *,
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="Print where it listens as one JSON object.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> int:
    """Run the server until it is told to stop (Ctrl-C or SIGTERM); unfinished jobs go on at the next start."""
    folder = ServerHome(home or default_home())
    config = folder.read_config()
    if log_level.lower() not in LOG_LEVELS:
        raise ConfigError(f"--log-level: {log_level!r} is none of {', '.join(LOG_LEVELS)}")
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "alembic", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with claim(folder):
        return asyncio.run(_serve(folder, config, json))


@app.command(epilog="Example: hedgerow server token --group pumps")
def token(
    *,
    group: Annotated[
        list[str] | None, typer.Option(help="Group of the device that will join; repeat for more.")
    ] = None,
    ttl_s: Annotated[float, typer.Option(help="Seconds for which the token is good.")] = 900.0,
    device: Annotated[str | None, typer.Option(help="Bind the token to this device name.")] = None,
    operator: Annotated[
        str | None, typer.Option(help="Instead: make an operator token with this name.")
    ] = None,
    role: Annotated[
        str, typer.Option(help="Role of the operator: viewer, operator, approver, admin.")
    ] = "viewer",
    home: Home = None,
    json: Json = False,
) -> int:
    """Make a one-use token for a device to join, or a token for an operator; it is shown this once."""
    text = (
        _operator_token(home, operator, role)
        if operator
        else _join_token(home, tuple(group or ()), ttl_s, device)
    )
    print_json({"token": text}) if json else say(text)
    return 0


def main(arguments: list[str]) -> int:
    """Run ``hedgerow server``."""
    return run_app(app, "server", arguments)


def _join_token(home: Path | None, groups: tuple[str, ...], ttl_s: float, device: str | None) -> str:
    from hedgerow.server.fleet.tokens import JoinTokens
    from hedgerow.server.pki.authority import CertificateAuthority
    from hedgerow.server.store.database import Database

    folder = ServerHome(home or default_home())
    database = Database(folder.database_url(folder.read_config()))
    with contextlib.closing(database):
        pin = CertificateAuthority.load(folder.pki).pin
        return JoinTokens(database, pin).issue(groups, life_s=ttl_s, device=device).text()


def _operator_token(home: Path | None, name: str, role: str) -> str:
    from hedgerow.server.api.operators import Operators, Role
    from hedgerow.server.store.database import Database

    if role.upper() not in Role.__members__:
        raise ConfigError(f"--role: {role!r} is none of {', '.join(known.name.lower() for known in Role)}")
    folder = ServerHome(home or default_home())
    database = Database(folder.database_url(folder.read_config()))
    with contextlib.closing(database):
        return Operators(database).issue(name, Role[role.upper()])


async def _serve(folder: ServerHome, config: ServerConfig, json: bool) -> int:
    # Imported late: it takes over a second, and a wrong option should not.
    from hedgerow.server.app.garbage import settle
    from hedgerow.server.app.server import Server

    server = Server(folder, config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running = await server.start()
    settle()
    if json:
        print_json(running)
    else:
        say(f"devices:   https://{config.gateway_host}:{running.gateway_port}")
        say(f"operators: http://{config.operator_host}:{running.operator_port}")
    await stop.wait()
    _log.info("stopping; unfinished jobs go on at the next start")
    try:
        await asyncio.wait_for(server.stop(), STOP_DEADLINE_S)
    except TimeoutError:
        raise TransportError(f"did not stop within {STOP_DEADLINE_S:.0f} s and was cut off") from None
    return 0
