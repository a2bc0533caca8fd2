"""The workbench process: answers requests from standard input until it ends."""

from __future__ import annotations

import os
import sys

from hedgerow.models.workbench.frames import read_frame, write_frame


def main() -> int:
    """Serve until standard input closes.

    Standard output belongs to the protocol, so whatever libraries print goes to standard error instead.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from hedgerow.models.workbench.service import Service  # torch: after the pipes are in order

    service = Service()
    while (data := read_frame(sys.stdin.buffer)) is not None:
        write_frame(answers, service.answer(data))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
