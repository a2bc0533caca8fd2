"""``hedgerow demo``: the whole loop on this machine, with real processes."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hedgerow.server.cli.output import print_json, run_app
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.demo.flow import Demo
from hedgerow.simulations.demo.result import DemoResult
from hedgerow.simulations.demo.scene import DEVICES, Scene, recorded, simulated
from hedgerow.simulations.demo.table import print_result
from hedgerow.simulations.processes.broker import Broker
from hedgerow.simulations.processes.workplace import Workplace

app = typer.Typer(
    help="Run the whole loop on this machine with real processes.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(epilog="Example: hedgerow demo --csv recordings --json")
def demo(
    *,
    csv: Annotated[
        Path | None, typer.Option(help="Folder of labelled recordings, one file a device.")
    ] = None,
    profile: Annotated[Path | None, typer.Option(help="Profile that maps them (default: skab.toml).")] = None,
    devices: Annotated[int, typer.Option(min=2, max=32, help="How many recordings to play.")] = DEVICES,
    seed: Annotated[int, typer.Option(min=0, help="Which simulated machines.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave all of it running until Ctrl-C.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object on the last line.")
    ] = False,
) -> int:
    """Enrol a fleet, train privately, ship the model, break a machine, see the alarm; exit 1 if a step fell short."""
    configs = configs_folder()
    if csv is None:
        scene = simulated(configs, seed)
    else:
        scene = recorded(configs, csv, profile or configs / "profiles" / "skab.toml", devices)
    folder = Path(tempfile.mkdtemp(prefix="hedgerow-demo-"))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _play(scene, folder, keep, json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Run ``hedgerow demo``."""
    return run_app(app, "demo", arguments)


def _play(scene: Scene, folder: Path, keep: bool, json: bool) -> int:
    say = _teller()
    work = Workplace(folder)
    broker = Broker(folder / "broker")
    running: Demo | None = None
    try:
        broker.start()
        running = Demo(scene, work, broker, say)
        result = running.run()
        _show(result, json)
        if keep:
            _wait(running, say)
        return 0 if result.success else 1
    finally:
        if running is not None:
            running.close()
        work.close()
        broker.close()


def _show(result: DemoResult, json: bool) -> None:
    if json:
        print_json(result)
    else:
        print_result(result, Console(width=max(140, Console().width)))


def _wait(running: Demo, say: Callable[[str], None]) -> None:
    say(f"dashboard: {running.server.dashboard}  token: {running.server.operator_token.read_text().strip()}")
    say("Ctrl-C ends it")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say("ending")


def _teller() -> Callable[[str], None]:
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:6.1f} s] {text}\n")
        sys.stderr.flush()

    return say


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
