"""What the machine can do: float32 matrix products of 2048 by 2048, by so many threads.

``python -m …simulation_peers.sgemm FOLDER THREADS``: a round is one product; FOLDER is not looked at.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import numpy.typing as npt
import torch

from hedgerow.simulations.bench.simulation_peers.speaking import serve
from hedgerow.simulations.bench.simulation_peers.task import Setup

SIDE = 2048
FLOPS = 2 * SIDE**3


class Products:
    """Repeats one product."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self._a = torch.rand(SIDE, SIDE, generator=generator)
        self._out = torch.empty(SIDE, SIDE)

    def configure(self, setup: Setup) -> None:
        """Do nothing: a product is a product."""

    def rounds(self, n: int) -> list[float]:
        """Time ``n`` products, each after one that is not timed."""
        torch.mm(self._a, self._a, out=self._out)
        seconds = []
        for _ in range(n):
            start = time.perf_counter()
            torch.mm(self._a, self._a, out=self._out)
            seconds.append(time.perf_counter() - start)
        return seconds

    def model(self) -> npt.NDArray[np.float32]:
        """Return the product's first row."""
        return np.array(self._out[0].numpy())


def main(arguments: list[str]) -> None:
    """Serve products."""
    torch.set_num_threads(int(arguments[1]))
    serve(Products())


if __name__ == "__main__":
    main(sys.argv[1:])
