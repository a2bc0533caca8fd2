"""Telling systemd that the agent is ready and alive (sd_notify(3), sd_watchdog_enabled(3)), without its library."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping


class Watchdog:
    """Does nothing where no supervisor listens. ``interval_s`` is how often it wants to hear, None for never."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        self._address = given.get("NOTIFY_SOCKET", "")
        self.interval_s = _interval_s(given) if self._address else None

    def ready(self) -> bool:
        """Say that start-up is over; return whether somebody was told."""
        return self._send("READY=1")

    def stopping(self) -> bool:
        """Say that an orderly end has begun."""
        return self._send("STOPPING=1")

    def beat(self, status: str = "") -> bool:
        """Say that the agent is alive, with a line of status for ``systemctl status``."""
        text = " ".join(status.split())
        return self._send("WATCHDOG=1" + (f"\nSTATUS={text}" if text else ""))

    def watch(self, alive: Callable[[], bool], stop: threading.Event) -> None:
        """Beat at half the wanted interval while ``alive`` says so, until ``stop``.

        When ``alive`` turns False nothing more is said, and the supervisor ends and restarts the process.
        """
        if self.interval_s is None:
            stop.wait()
            return
        while not stop.wait(self.interval_s / 2):
            if alive():
                self.beat()

    def _send(self, text: str) -> bool:
        if not self._address:
            return False
        # A leading @ stands for the zero byte of an abstract socket.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(address)
                sender.sendall(text.encode())
        except OSError:
            # A supervisor that went away is no reason to stop.
            return False
        return True


def _interval_s(environment: Mapping[str, str]) -> float | None:
    pid = environment.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None
