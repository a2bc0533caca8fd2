"""Keeps the garbage collector from stopping a busy server: what was there when it started is not looked through again."""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 10_000
"""New objects before the youngest are looked through; CPython's 700 are two requests' worth."""


def settle() -> None:
    """Have later collections leave alone all that is alive now; for a process that has just started its parts.

    A full collection goes through every object while nobody is served: after the server's imports those are some 400,000.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
