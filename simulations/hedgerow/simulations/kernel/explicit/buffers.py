"""Memory that stays from batch to batch: nothing is allocated while training runs."""

from __future__ import annotations

import torch


class Buffers:
    """Named float32 buffers for up to ``capacity`` examples."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held: dict[str, torch.Tensor] = {}

    def take(self, name: str, rows: int, *shape: int) -> torch.Tensor:
        """Return the first ``rows`` examples of buffer ``name``, ``(rows, *shape)``; all zero when it is new."""
        return self.held(name, shape)[:rows]

    def block(self, name: str, values: int, per_example: int) -> torch.Tensor:
        """Return the first ``values`` of a buffer of ``per_example`` values each, flat: for layouts where examples come later."""
        return self.held(name, (per_example,)).view(-1)[:values]

    def held(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Return the whole buffer, ``(capacity, *shape)``."""
        if name not in self._held:
            self._held[name] = torch.zeros((self.capacity, *shape))
        return self._held[name]
