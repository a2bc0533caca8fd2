"""What can end a trainer's place in the fleet."""

from __future__ import annotations

from hedgerow.shared.errors import HedgerowError, TransportError


class ReplacedError(HedgerowError):
    """Another process of this device took over the job; this one must end without a word."""


class JobClosedError(TransportError):
    """The server does not run the job: it ended, or the server has just restarted."""
