"""One server process per folder: two would run the same jobs twice and sign over each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hedgerow.server.app.home import ServerHome
from hedgerow.shared.errors import ConfigError


@contextmanager
def claim(home: ServerHome) -> Iterator[None]:
    """Hold the folder for this process; the operating system lets go of it however the process ends.

    Raises ConfigError if another process holds it.
    """
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"{home.root}: a server runs on this folder already (process {holder}); stop it first, "
                "or name another folder with --home"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
