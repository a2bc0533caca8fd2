"""What the trainer needs of the fleet: instructions in, models fetched, replies out. The Flower side implements it."""

from __future__ import annotations

from typing import Any, Protocol

from hedgerow.shared.job import TrainInstruction, TrainReply


class FleetNode(Protocol):
    """A device's seat in one job. All methods raise TransportError if the server cannot be reached, AuthError if it
    refuses this device.
    """

    def receive(self, timeout_s: float) -> tuple[TrainInstruction, Any] | None:
        """Return the next instruction with a handle to answer it by, or None after ``timeout_s``."""

    def fetch_model(self, sha256: str) -> bytes | bytearray:
        """Return the global model's bytes from the content-addressed store."""

    def reply(self, handle: Any, header: TrainReply, payload: bytes) -> object:
        """Send the answer to an instruction."""

    def close(self) -> None:
        """Leave the job."""
