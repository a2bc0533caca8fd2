"""A process and all that it started: who they are, what memory they share out, and ending what is left of them.

Ray starts servers, agents and workers; what it leaves when it is interrupted is found here and ended. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_PARENT, _BEGAN = 1, 19
"""Places in ``/proc/PID/stat`` after the name: the parent's id, and the tick at which the process began."""


class Member(NamedTuple):
    """One process; ``began`` tells it from a later one with the same number."""

    pid: int
    began: int


def family(pid: int) -> list[Member]:
    """Return process ``pid`` and the processes that it started, and theirs; nothing if it is gone."""
    found: dict[int, tuple[int, int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            found[int(entry.name)] = stat
    if pid not in found:
        return []
    children: dict[int, list[int]] = {}
    for child, (parent, _) in found.items():
        children.setdefault(parent, []).append(child)
    members = [pid]
    for parent in members:
        members.extend(children.get(parent, []))
    return [Member(each, found[each][1]) for each in members]


def is_alive(member: Member) -> bool:
    """Say whether a process still runs (one that ended and waits for its parent does not)."""
    stat = _stat(member.pid)
    return stat is not None and stat[1] == member.began


def end_all(members: list[Member], patience_s: float = 5.0) -> None:
    """Kill those that still run, and wait until they are gone or patience is over."""
    for member in members:
        if is_alive(member):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member.pid, signal.SIGKILL)
    deadline = time.monotonic() + patience_s
    while any(is_alive(member) for member in members) and time.monotonic() < deadline:
        time.sleep(0.02)


WHOLE: Final = ("Pss:",)
WRITTEN: Final = ("Pss_Anon:", "Pss_Shmem:")
"""What processes wrote. The rest is files' pages: those of libraries count more when somebody else's process ends."""


def family_pss(pid: int, fields: Collection[str] = WHOLE) -> int:
    """Return the proportional set size of a process and all that it started, in bytes: the sum of these ``fields``.

    Pages that several processes share are divided among them. Processes that end meanwhile count nothing.
    """
    total = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            for line in (_PROC / str(member.pid) / "smaps_rollup").read_text().splitlines():
                name, *rest = line.split()
                if name in fields:
                    total += int(rest[0]) * 1024
    return total


def _stat(pid: int) -> tuple[int, int] | None:
    """Return a process's parent and when it began, or None if it does not run."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZX" else (int(fields[_PARENT]), int(fields[_BEGAN]))
