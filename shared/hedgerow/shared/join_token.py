"""Join tokens: ``hrj1.<id>.<secret>.<pin of the fleet's CA>``, 111 characters, for one device, once.

The pin lets a device recognise the fleet's CA before it shows the secret to anyone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

import msgspec

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError

_FORM: Final = re.compile(r"hrj1\.([0-9a-f]{8})\.([A-Za-z0-9_-]{32})\.([0-9a-f]{64})", re.ASCII)


class JoinToken(msgspec.Struct, frozen=True):
    """A token as its owner holds it; the server keeps only the SHA-256 of ``secret``."""

    id: str
    secret: str
    ca_pin: str

    def text(self) -> str:
        """Return the token as it is handed to a person."""
        return f"hrj1.{self.id}.{self.secret}.{self.ca_pin}"

    def __repr__(self) -> str:
        return f"JoinToken(id={self.id!r}, secret=hidden, ca_pin={self.ca_pin!r})"


def new_token(ca_pin: str) -> JoinToken:
    """Return a token with 192 bits of secret from the operating system."""
    return JoinToken(secrets.token_hex(4), secrets.token_urlsafe(24), ca_pin)


def parse_token(text: str) -> JoinToken:
    """Return the token in ``text``; surrounding white space is ignored.

    Raises ConfigError, which never repeats the text, if it is no token or longer than ``MAX_TOKEN_BYTES``.
    """
    if len(text) > limits.MAX_TOKEN_BYTES:
        raise ConfigError(f"this is no join token: longer than {limits.MAX_TOKEN_BYTES} characters")
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            "this is no join token: expected hrj1.ID.SECRET.PIN, 111 characters, as 'hedgerow server token' prints it"
        )
    return JoinToken(*match.groups())


def secret_hash(secret: str) -> str:
    """Return what a server keeps of a token's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
