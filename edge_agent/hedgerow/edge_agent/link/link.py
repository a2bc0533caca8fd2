"""The link as the agent's daemon uses it: one object that starts, stops and tells how it stands."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from hedgerow.edge_agent.clock import LastKnownTime
from hedgerow.edge_agent.config import AgentConfig
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.client import DeviceClient
from hedgerow.edge_agent.link.desired import DesiredPoll
from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.edge_agent.link.reporter import Reporter
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.edge_agent.link.traffic import Traffic
from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.shared.messages import DesiredState, Heartbeat, TrainerExit

_log = logging.getLogger(__name__)


class LinkStatus(msgspec.Struct, frozen=True):
    """How the link stands: ``reason`` says in a sentence why it is down."""

    connected: bool
    down_s: float
    reason: str
    bytes_up: int
    bytes_down: int


class Link:
    """The agent's two connections to the server: one that waits for wishes, one that reports.

    ``heartbeat`` is called in the reporting thread, ``on_desired`` in the polling thread.
    """

    def __init__(
        self,
        home: AgentHome,
        config: AgentConfig,
        outbox: Outbox,
        clock: LastKnownTime,
        *,
        heartbeat: Callable[[], Heartbeat],
        on_desired: Callable[[DesiredState], None],
        traffic: Traffic | None = None,
    ) -> None:
        self.traffic = traffic or Traffic()
        self._home = home
        context = device_context(home.identity_files())
        settings = config.link
        self._poll_client = DeviceClient(config.server_url, context, self.traffic)
        self._report_client = DeviceClient(config.server_url, context, self.traffic)
        self._poll_state = Reconnect(longest_s=settings.max_backoff_s)
        self._report_state = Reconnect(longest_s=settings.max_backoff_s)
        self._reporter = Reporter(
            self._report_client,
            outbox,
            heartbeat,
            clock,
            self._report_state,
            interval_s=settings.heartbeat_interval_s,
        )
        self._poll = DesiredPoll(
            self._poll_client,
            on_desired,
            self._poll_state,
            wait_s=settings.poll_wait_s,
            on_back=self._reporter.retry_now,
        )

    def start(self) -> None:
        """Start both threads. An unreachable server is no error: they go on trying."""
        self._poll.start()
        self._reporter.start()

    def stop(self, deadline_s: float) -> None:
        """Stop both threads within ``deadline_s``; what was not sent waits in the outbox."""
        end = time.monotonic() + deadline_s
        self._poll.stop(max(0.0, end - time.monotonic()))
        self._reporter.stop(max(0.0, end - time.monotonic()))

    def heartbeat_now(self) -> None:
        """Report at once: the state changed."""
        self._reporter.heartbeat_now()

    def trainer_exited(self, told: TrainerExit) -> None:
        """Tell the server that a trainer died."""
        self._reporter.trainer_exited(told)

    def identity_renewed(self) -> None:
        """Go on with the identity that is in the home now, from the next connection. Raises StorageError."""
        context = device_context(self._home.identity_files())
        self._poll_client.use(context)
        self._report_client.use(context)
        _log.info("link: goes on with the renewed certificate")

    def status(self) -> LinkStatus:
        """Return how the link stands."""
        up, down = self.traffic.totals()
        since = self._report_state.down_since
        error = self._report_state.error or self._poll_state.error
        down_s = 0.0 if since is None else time.monotonic() - since
        return LinkStatus(since is None, down_s, "" if error is None else str(error), up, down)
