"""The ``hedgerow`` command: finds the group that was typed among the installed parts and hands over to it.

Each part registers its commands as an entry point of ``hedgerow.commands``: a callable ``main(arguments) -> int``.
Only that one part is imported, so that ``hedgerow agent run`` stays small and starts fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import cast

from hedgerow.shared.errors import HedgerowError

GROUP = "hedgerow.commands"
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_MISSING_EXTRA = 3
EXIT_INTERRUPTED = 130

_ABOUT = {
    "demo": "run the whole loop on this machine with real processes",
    "server": "set up and run the aggregation server",
    "agent": "join a fleet, run the device daemon, ask it",
    "job": "submit, watch and list training jobs",
    "model": "list, show and roll back models",
    "simulate": "try a scenario on this machine",
    "bench": "measure against named peers",
    "doctor": "find what is wrong with this installation or device",
}
_EXTRA = {
    "server": "server",
    "job": "server",
    "model": "server",
    "demo": "demo",
    "bench": "demo",
    "simulate": "simulation",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``hedgerow``.

    Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong usage, 3 an extra is not installed,
    130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    if not given or given[0] in ("-h", "--help", "help"):
        _say(_usage())
        return EXIT_OK if given else EXIT_USAGE
    if given[0] in ("-V", "--version", "version"):
        _say(f"hedgerow {version('hedgerow')}")
        return EXIT_OK
    return _run_group(given[0], given[1:])


def _run_group(group: str, rest: list[str]) -> int:
    found = [entry for entry in entry_points(group=GROUP) if entry.name == group]
    if not found:
        _complain(f"hedgerow: no command group {group!r}\n\n{_usage()}")
        return EXIT_USAGE
    try:
        return _load(found[0])(rest)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "hedgerow":
            raise
        extra = _EXTRA.get(group, "train")
        _complain(f"hedgerow {group}: {error.name} is not installed; try: pip install 'hedgerow[{extra}]'")
        return EXIT_MISSING_EXTRA
    except HedgerowError as error:
        _complain(f"hedgerow {group}: {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _load(entry: EntryPoint) -> Callable[[list[str]], int]:
    return cast("Callable[[list[str]], int]", entry.load())


def _usage() -> str:
    groups = sorted({entry.name for entry in entry_points(group=GROUP)})
    lines = [f"  {name:<8} {_ABOUT.get(name, '')}" for name in groups]
    return (
        "usage: hedgerow GROUP [COMMAND] [OPTIONS]\n\n"
        + "\n".join(lines)
        + "\n\nexample: hedgerow demo --json"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
