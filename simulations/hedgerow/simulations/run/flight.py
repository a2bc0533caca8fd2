"""What is under way in an asynchronous run: devices that train, each on the version it began from."""

from __future__ import annotations

import msgspec


class Leg(msgspec.Struct, frozen=True, order=True):
    """One device's training. Legs are ordered by when they end, then by when they began.

    ``ends_s`` is simulated time; ``dropped`` says that no update comes and the server gives up then.
    """

    ends_s: float
    number: int
    device: int
    version: int
    dropped: bool = False


class Flight(msgspec.Struct):
    """``legs`` is a heap. ``asked`` counts how often a device was looked for. ``models`` holds, by version, what legs began from: float32 bytes.

    ``used`` are the devices that began on the newest version.
    """

    legs: list[Leg]
    asked: int
    models: dict[int, bytes]
    used: list[int]
