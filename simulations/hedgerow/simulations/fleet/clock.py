"""A wrong clock for one process and its children: a small library preloaded into it, so that TLS is fooled too."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from hedgerow.shared.errors import UnsupportedError

SOURCE: Final = Path(__file__).with_name("clock_shift.c")
_COMPILE_S: Final = 60.0


def skewed_environment(folder: Path, skew_s: float) -> dict[str, str]:
    """Return what a process's environment needs for its wall clock to be ``skew_s`` seconds ahead (behind if negative).

    Monotonic clocks are left alone. Raises UnsupportedError without a C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise UnsupportedError(
            "faults.clock_skew_s: a wrong clock is a small C library; install a C compiler (on Debian: apt install gcc)"
        )
    library = folder / "clock_shift.so"
    if not library.exists():
        command = [compiler, "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
        if done.returncode != 0:
            raise UnsupportedError(f"faults.clock_skew_s: {compiler} failed: {done.stderr.strip()[-500:]}")
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT_S": str(-round(skew_s))}
