"""Has the certificate renewed in time: at two thirds of its life, by a child process, again later if that fails."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.shared.errors import HedgerowError, StorageError, TransportError
from hedgerow.shared.unreadable import UNREADABLE

_log = logging.getLogger(__name__)
RENEW_AT: Final = 2 / 3
LOOK_EVERY_S: Final = 3600.0
CHILD_DEADLINE_S: Final = 120.0


class IdentityFacts(msgspec.Struct, frozen=True):
    """What the agent must know of its certificate without reading it; times in seconds since 1970."""

    device: str
    serial: str
    not_before_s: float
    not_after_s: float


def due_in_s(facts: IdentityFacts, now_s: float) -> float:
    """Return the seconds until the certificate should be renewed; 0 or less if it should be now."""
    return facts.not_before_s + RENEW_AT * (facts.not_after_s - facts.not_before_s) - now_s


def read_facts(path: Path) -> IdentityFacts:
    """Return the facts of an identity. Raises StorageError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=IdentityFacts)
    except (OSError, *UNREADABLE) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error


def run_renewal(home: AgentHome) -> None:
    """Renew in a child process. Raises TransportError with the child's reason; the present identity stays then."""
    command = [sys.executable, "-m", "hedgerow.edge_agent.join.renew", "--home", str(home.path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_DEADLINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TransportError(f"the renewal could not run: {error}") from error
    if done.returncode != 0:
        raise TransportError(done.stderr.strip()[-500:] or f"the renewal ended with {done.returncode}")


class Renewal:
    """Watches the certificate's age in a thread of its own. ``on_renewed`` is called after each success."""

    def __init__(
        self,
        home: AgentHome,
        on_renewed: Callable[[], None],
        *,
        renew: Callable[[AgentHome], None] = run_renewal,
        now_s: Callable[[], float] = time.time,
        reconnect: Reconnect | None = None,
    ) -> None:
        self._home = home
        self._on_renewed = on_renewed
        self._renew = renew
        self._now_s = now_s
        self._reconnect = reconnect or Reconnect(first_s=30.0, longest_s=LOOK_EVERY_S)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hedgerow-renewal", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Stop watching; a renewal under way is waited for until the deadline and otherwise ends by itself."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(deadline_s)

    def step(self) -> float:
        """Renew if it is time and return the seconds until the next look."""
        try:
            due_s = due_in_s(read_facts(self._home.identity_files().facts), self._now_s())
            if due_s > 0:
                # Looked at hourly, because a clock may jump.
                return min(due_s, LOOK_EVERY_S)
            self._renew(self._home)
            self._on_renewed()
        except HedgerowError as error:
            wait_s = self._reconnect.failed(error)
            _log.warning("the certificate is due for renewal: %s; next try in %.0f s", error, wait_s)
            return wait_s
        self._reconnect.succeeded()
        return LOOK_EVERY_S

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            wait_s = self.step()
