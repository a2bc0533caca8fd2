"""An MQTT broker of one's own for a while: mosquitto where it is installed, else the embedded one, as a child process.

Should this process end without stopping it, by SIGKILL say, a guard stops it (``guard``).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from hedgerow.shared.errors import TransportError, UnsupportedError
from hedgerow.simulations.processes.guard import Guard

Kind = Literal["mosquitto", "embedded"]
_START_S = 15.0
_LOOPBACK = "127.0.0.1"


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto broker, or None."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """Return a port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Broker:
    """Listens on the loopback until stopped; keeps sessions in ``folder`` across ``stop`` and ``start`` (mosquitto only).

    For mosquitto ``extra`` are further lines of its configuration, ``plain`` False leaves the listener to them, and
    ``config`` replaces it altogether; ``port`` is then what it listens on. ``guard`` is somebody else's to use, and to close.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        kind: Kind | None = None,
        port: int | None = None,
        extra: str = "",
        plain: bool = True,
        config: str | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.host = _LOOPBACK
        self.port = port or free_port()
        self.kind: Kind = kind or ("mosquitto" if find_mosquitto() else "embedded")
        self._own_folder = None if folder else tempfile.TemporaryDirectory(prefix="hedgerow-broker-")
        self._folder = folder or Path(self._own_folder.name if self._own_folder else ".")
        self._extra = extra
        self._plain = plain
        self._config = config
        self._guard = guard or Guard()
        self._own_guard = guard is None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for clients without TLS."""
        return f"mqtt://{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's process id, None while it is stopped."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and return when it takes connections.

        Raises TransportError if it ends or does not listen in time, UnsupportedError if there is no broker to start.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        command = self._mosquitto() if self.kind == "mosquitto" else self._embedded()
        self._guard.start()
        environment = {**os.environ, **self._guard.environment}
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        self._wait_until_listening(self._process)

    def stop(self, *, kill: bool = False) -> None:
        """End the process, with ``kill`` at once and without its saving anything; keeps the folder."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._own_guard:
            self._guard.close()

    def close(self) -> None:
        """Stop and remove the folder, if it was made here."""
        self.stop()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _mosquitto(self) -> list[str]:
        program = find_mosquitto()
        if program is None:
            raise UnsupportedError("mosquitto is not installed; on Debian: apt install mosquitto")
        text = self._config if self._config is not None else self._own_config()
        if os.geteuid() == 0:
            # Started as root mosquitto would change to its own user, which cannot write into the folder.
            text = "user root\n" + text
        path = self._folder / "broker.conf"
        path.write_text(text)
        return [program, "-c", str(path)]

    def _own_config(self) -> str:
        lines = ["persistence true", f"persistence_location {self._folder}/", "max_inflight_messages 100"]
        lines += ["max_queued_messages 100000", "log_type error", "log_type warning"]
        if self._plain:
            lines += [f"listener {self.port} {self.host}", "allow_anonymous true"]
        return "\n".join(lines) + "\n" + self._extra

    def _embedded(self) -> list[str]:
        module = "hedgerow.simulations.processes.embedded_broker"
        return [sys.executable, "-m", module, "--port", str(self.port)]

    def _wait_until_listening(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise TransportError(
                    f"the broker ended with status {process.returncode}: {self._last_words()}"
                )
            try:
                with socket.create_connection((self.host, self.port), timeout=1):
                    return
            except OSError:
                # A foreign program offers no event for "listening"; this is the shortest honest wait.
                time.sleep(0.02)
        self.stop(kill=True)
        raise TransportError(f"the broker did not listen on {self.host}:{self.port} within {_START_S:g} s")

    def _last_words(self) -> str:
        log = self._folder / "broker.log"
        return log.read_text(errors="replace")[-500:].strip() if log.exists() else ""
