"""What an update came to: one JSON line on standard output and an exit code. Read by the agent; no tuf here."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hedgerow.shared.errors import ContentError
from hedgerow.shared.unreadable import UNREADABLE

MAX_RESULT_BYTES = 16 * 1024

Reason = Literal[
    "staged",
    "already-here",
    "unreachable",
    "untrusted",
    "expired",
    "not-listed",
    "mismatch",
    "rollback-refused",
    "clock-behind",
    "disk-full",
    "storage",
    "usage",
    "crashed",
    "too-slow",
    "busy",
    "stopped",
]


class ExitCode(IntEnum):
    """Exit codes of the updater process.

    0 the bundle is staged or was here already; 1 a fault of the program; 2 wrong usage or a home without identity;
    10 the server cannot be reached, breaks off or is too slow, or another update runs:
    try again later; 11 what it serves is not trusted;
    12 an older version that may not be installed; 13 the clock stands before the last known time; 14 the disk is
    full or refuses.
    """

    STAGED = 0
    CRASHED = 1
    USAGE = 2
    TRANSPORT = 10
    UNTRUSTED = 11
    ROLLBACK = 12
    CLOCK = 13
    STORAGE = 14


EXIT_OF: dict[Reason, ExitCode] = {
    "staged": ExitCode.STAGED,
    "already-here": ExitCode.STAGED,
    "unreachable": ExitCode.TRANSPORT,
    "untrusted": ExitCode.UNTRUSTED,
    "expired": ExitCode.UNTRUSTED,
    "not-listed": ExitCode.UNTRUSTED,
    "mismatch": ExitCode.UNTRUSTED,
    "rollback-refused": ExitCode.ROLLBACK,
    "clock-behind": ExitCode.CLOCK,
    "disk-full": ExitCode.STORAGE,
    "storage": ExitCode.STORAGE,
    "usage": ExitCode.USAGE,
    "crashed": ExitCode.CRASHED,
    "too-slow": ExitCode.TRANSPORT,
    "busy": ExitCode.TRANSPORT,
    "stopped": ExitCode.TRANSPORT,
}


class UpdateResult(msgspec.Struct, frozen=True):
    """How one update ended. ``folder`` holds the complete bundle when ``ok``; ``retry`` says another try may help."""

    reason: Reason
    model: str
    version: int
    manifest_sha256: str
    detail: Annotated[str, Meta(max_length=2000)] = ""
    folder: str = ""
    bytes_down: int = 0
    bytes_resumed: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Tell whether the bundle may be activated."""
        return self.exit_code is ExitCode.STAGED

    @property
    def retry(self) -> bool:
        """Tell whether the same update may succeed later without a new order: expired signatures are renewed too."""
        passing = (ExitCode.TRANSPORT, ExitCode.CLOCK, ExitCode.STORAGE)
        return self.exit_code in passing or self.reason == "expired"

    @property
    def exit_code(self) -> ExitCode:
        """Return the exit code that belongs to the reason."""
        return EXIT_OF[self.reason]


# Made at import: two threads that meet a Struct for the first time at once crash msgspec while it reads the type.
_RESULTS = msgspec.json.Decoder(UpdateResult)


def encode_result(result: UpdateResult) -> bytes:
    """Return the result as one line of JSON."""
    return msgspec.json.encode(result) + b"\n"


def decode_result(output: bytes) -> UpdateResult:
    """Return the result in the last line of ``output``. Raises ContentError if there is none."""
    lines = output.strip().splitlines()
    if not lines or len(lines[-1]) > MAX_RESULT_BYTES:
        raise ContentError("the updater printed no result")
    try:
        return _RESULTS.decode(lines[-1])
    except UNREADABLE as error:
        raise ContentError(f"the updater printed no result: {error}") from error
