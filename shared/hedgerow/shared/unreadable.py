"""What msgspec raises for bytes that it cannot decode: its own error, and two that it lets through.

A text that is not UTF-8 is a ``UnicodeDecodeError``, nesting beyond the stack a ``RecursionError``; whoever reads bytes from a
disk or a network has to expect all three.
"""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""For ``except``: bytes that are not what they should be. ``msgspec.ValidationError`` is a ``DecodeError``."""
