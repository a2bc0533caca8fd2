"""What the operating system says of this process and its disk."""

from __future__ import annotations

import os
from pathlib import Path

_SMAPS = Path("/proc/self/smaps_rollup")
_STATM = Path("/proc/self/statm")


def pss_bytes() -> int:
    """Return the proportional set size of this process; its resident size where the kernel does not tell, or 0."""
    try:
        for line in _SMAPS.read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def disk_free_bytes(path: Path) -> int:
    """Return what this process may still write to the file system of ``path``; 0 if that cannot be told."""
    try:
        there = os.statvfs(path)
    except OSError:
        return 0
    return there.f_bavail * there.f_frsize
