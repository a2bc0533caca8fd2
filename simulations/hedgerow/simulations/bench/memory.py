"""Peak memory of this process between two moments, as Linux counts it."""

from __future__ import annotations

import gc
from pathlib import Path

from hedgerow.shared.errors import UnsupportedError

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakGrowth:
    """Resets the kernel's high-water mark when made; ``bytes_`` is how far memory rose above that moment since.

    Raises UnsupportedError where the kernel does not offer it.
    """

    def __init__(self) -> None:
        gc.collect()
        try:
            _CLEAR.write_text("5")
        except OSError as error:
            raise UnsupportedError(f"peak memory needs Linux's {_CLEAR}: {error}") from error
        self._before = _field("VmRSS")

    @property
    def bytes_(self) -> int:
        """Peak resident bytes since, less those at the start."""
        return _field("VmHWM") - self._before


def _field(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise UnsupportedError(f"{_STATUS} has no {name}")
