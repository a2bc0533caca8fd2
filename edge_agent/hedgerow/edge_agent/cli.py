"""``hedgerow agent``: join a fleet, run the daemon, ask it. ``run`` is found without loading the command library."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hedgerow.edge_agent.home import DEFAULT_HOME
from hedgerow.shared.errors import ConfigError

_RUN_HELP = """\
usage: hedgerow agent run [--home DIR]

Run the agent until it is told to stop (Ctrl-C or SIGTERM). It serves what is installed, takes readings from the
broker, and follows the server. Exit codes: 0 stopped, 1 could not start (the reason is on standard error).

  --home DIR  the device's folder (default: HEDGEROW_HOME or /var/lib/hedgerow)

Example: hedgerow agent run --home /var/lib/hedgerow
"""


def main(arguments: list[str]) -> int:
    """Run ``hedgerow agent``."""
    if arguments[:1] == ["run"]:
        return _run(arguments[1:])
    from hedgerow.edge_agent import commands

    return commands.main(arguments)


def default_home() -> Path:
    """Return the device's folder: HEDGEROW_HOME, else ``/var/lib/hedgerow``."""
    return Path(os.environ.get("HEDGEROW_HOME", DEFAULT_HOME))


def _run(options: list[str]) -> int:
    home = default_home()
    rest = list(options)
    while rest:
        option = rest.pop(0)
        name, equals, value = option.partition("=")
        if name in ("-h", "--help"):
            sys.stdout.write(_RUN_HELP)
            return 0
        if name != "--home" or not (equals or rest):
            sys.stderr.write(f"hedgerow agent run: cannot use {option!r}\n\n{_RUN_HELP}")
            return 2
        home = Path(value if equals else rest.pop(0))
    if not home.is_dir():
        raise ConfigError(
            f"{home}: no such folder; join a fleet first: hedgerow agent join TOKEN --home {home}"
        )
    from hedgerow.edge_agent.daemon import run

    return run(home)
