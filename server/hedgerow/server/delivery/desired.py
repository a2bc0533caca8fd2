"""What rollouts need of the part that keeps the devices and their desired state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hedgerow.shared.messages import BundleTarget


class DesiredStates(Protocol):
    """Keeps what the server wants of each device and wakes its long poll. Durable: survives a restart."""

    def set_bundle(self, devices: Sequence[str], target: BundleTarget) -> object:
        """Make ``target`` the bundle that ``devices`` should serve for its model; the same again changes nothing."""
