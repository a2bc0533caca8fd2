"""Where a run leaves its files when nobody says where."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.run.checkpoint import FILE_NAME

RUNS = Path("runs")
_TIME = re.compile(r"-[0-9]{8}-[0-9]{6}(-[0-9]+)?")


def new_folder(name: str, now: datetime) -> Path:
    """Return ``runs/NAME-TIME``, with a number behind if that is taken."""
    stem = f"{name}-{now:%Y%m%d-%H%M%S}"
    found, number = RUNS / stem, 2
    while found.exists():
        found, number = RUNS / f"{stem}-{number}", number + 1
    return found


def newest_folder(name: str, file: str = FILE_NAME) -> Path:
    """Return the folder of the newest run of ``name`` that can be resumed: that has ``file``, written last.

    Raises ConfigError if there is none.
    """
    found = [
        path
        for path in RUNS.glob(f"{name}-*")
        # Not the runs of a scenario whose name merely begins alike.
        if _TIME.fullmatch(path.name.removeprefix(name)) and (path / file).is_file()
    ]
    if not found:
        raise ConfigError(f"--resume: no run of {name!r} under {RUNS}; name its folder with --folder")
    return max(found, key=lambda path: (path / file).stat().st_mtime_ns)
