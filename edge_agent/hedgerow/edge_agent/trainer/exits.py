"""Exit codes of the trainer process, and what each means to the supervisor.

Negative codes are signals, as ``subprocess`` reports them: −9 is a kill, on a device mostly by the kernel's
out-of-memory killer, which is told to take the trainer before anything else.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Why a trainer ended."""

    DONE = 0
    """The job is over."""
    USAGE = 2
    """Wrong arguments."""
    CONFIG = 10
    """``agent.toml`` or the profile cannot be read, or the job asks for a device that is not there."""
    MISSING_EXTRA = 11
    """torch, opacus, flwr or dp-accounting is not installed: ``pip install 'hedgerow[train]'``."""
    LEDGER = 12
    """The privacy ledger is damaged or was altered: nothing may be trained until a person has looked."""
    REFUSED = 13
    """The server does not accept this device."""
    REPLACED = 14
    """A newer trainer of this device took the job over."""
    STORAGE = 20
    """The disk is full or failing where the ledger lies."""
    OUT_OF_MEMORY = 21
    """An allocation failed; inference goes on."""
    STOPPED = 22
    """A signal, or the end of the agent."""
    CRASHED = 70
    """An error that nobody foresaw; the log has the traceback."""


PERMANENT = frozenset({Exit.USAGE, Exit.CONFIG, Exit.MISSING_EXTRA, Exit.LEDGER, Exit.REFUSED, Exit.REPLACED})


def is_permanent(code: int) -> bool:
    """Return whether starting the same trainer again would end the same way."""
    return code in PERMANENT


def describe(code: int) -> str:
    """Return a short word for an exit code, fit for a report to the server."""
    if code < 0:
        return "killed" if code == -9 else f"signal-{-code}"
    try:
        return Exit(code).name.lower().replace("_", "-")
    except ValueError:
        return f"exit-{code}"
