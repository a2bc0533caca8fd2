"""The long poll: learns within milliseconds what the server wants of this device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from hedgerow.edge_agent.link.client import DeviceClient
from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.messages import DesiredState

_log = logging.getLogger(__name__)
_GRACE_S = 15.0


class DesiredPoll:
    """Asks for the desired state and hands each new one to ``on_desired``, in a thread of its own.

    ``on_back`` is called when the server answers again after an outage. ``on_desired`` must return soon and raise nothing but HedgerowError; after one, the same state is handed over again.
    """

    def __init__(
        self,
        client: DeviceClient,
        on_desired: Callable[[DesiredState], None],
        reconnect: Reconnect,
        *,
        wait_s: float,
        on_back: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._on_desired = on_desired
        self._reconnect = reconnect
        self._wait_s = wait_s
        self._on_back = on_back
        self._stop = threading.Event()
        self._seen = -1
        self._thread = threading.Thread(target=self._run, name="hedgerow-desired", daemon=True)

    def start(self) -> None:
        """Start asking."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """End the question under way and the thread."""
        self._stop.set()
        self._client.interrupt()
        if self._thread.is_alive():
            self._thread.join(deadline_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._ask()
            except HedgerowError as error:
                if self._stop.is_set():
                    break
                wait_s = self._reconnect.failed(error)
                level = logging.WARNING if self._reconnect.failures == 1 else logging.DEBUG
                _log.log(level, "desired state: %s; next try in %.1f s", error, wait_s)
                self._stop.wait(wait_s)
        self._client.close()

    def _ask(self) -> None:
        path = f"/v1/device/desired?revision={self._seen}&wait_s={self._wait_s:g}"
        answer = self._client.get(path, timeout_s=self._wait_s + _GRACE_S)
        outage_s = self._reconnect.succeeded()
        if outage_s is not None:
            _log.info("desired state: the server is back after %.1f s", outage_s)
            self._on_back()
        if answer.status == 200:
            state = answer.decode(DesiredState)
            self._on_desired(state)
            self._seen = state.revision
