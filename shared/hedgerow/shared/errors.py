"""The errors of Hedgerow: one root per party at fault, so that callers retry one and alarm on another."""

from __future__ import annotations


class HedgerowError(Exception):
    """Root of every error that Hedgerow raises on purpose."""


class ConfigError(HedgerowError):
    """What a person wrote (a TOML file, a command line) is wrong; the message names file, key and remedy."""


class ContentError(HedgerowError):
    """Bytes from a device, a broker, a server or a disk are not what they must be; never retried."""


class IntegrityError(ContentError):
    """A hash, a signature or a size does not match what was promised."""


class UpdateRejectedError(ContentError):
    """A device's update cannot be counted.

    ``reason`` is one of a closed set of short codes (``non-finite``, ``wrong-size``, ``malformed``,
    ``over-norm``, ``over-size``, ``over-budget``, ``ledger-regressed``, ``duplicate``, ``stale``, ``unexpected``), used as
    a metric label.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"update rejected ({reason}): {detail}")
        self.reason = reason
        self.detail = detail


class TransportError(HedgerowError):
    """The other side could not be reached or broke off; worth another try."""


class AuthError(HedgerowError):
    """The other side is not who it must be, or may not do this."""


class StorageError(HedgerowError):
    """A disk is full, or a store is damaged; the message names the path."""


class BudgetError(HedgerowError):
    """The privacy budget does not allow this release."""


class UnsupportedError(HedgerowError):
    """What was asked for is not built, or not in this installation; the message says which extra helps."""
