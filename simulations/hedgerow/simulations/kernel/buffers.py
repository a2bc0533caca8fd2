"""Memory that stays from batch to batch: nothing of any size is allocated while training runs."""

from __future__ import annotations

import torch


class Buffers:
    """Named float32 buffers for up to ``capacity`` examples, on one device."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity = capacity
        self._device = device
        self._held: dict[str, torch.Tensor] = {}

    def take(self, name: str, rows: int, *shape: int) -> torch.Tensor:
        """Return the first ``rows`` examples of buffer ``name``, ``(rows, *shape)``, contiguous; all zero when it is new."""
        if name not in self._held:
            self._held[name] = torch.zeros((self.capacity, *shape), device=self._device)
        return self._held[name][:rows]

    def block(self, name: str, rows: int, values: int) -> torch.Tensor:
        """Return ``rows · values`` values, flat: for layouts in which examples do not come first."""
        if name not in self._held:
            self._held[name] = torch.zeros(self.capacity * values, device=self._device)
        return self._held[name][: rows * values]
