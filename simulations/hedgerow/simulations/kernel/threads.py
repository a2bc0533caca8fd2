"""Arithmetic on one thread: a worker has one core, and what is timed must be what runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController


def keep_to_one_thread() -> None:
    """Keep torch and numpy's linear algebra to one thread in this process from now on."""
    torch.set_num_threads(1)
    for library in _libraries():
        library.set_num_threads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep them to one thread here, and let them have what they had afterwards."""
    before = torch.get_num_threads(), [library.get_num_threads() for library in _libraries()]
    keep_to_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        for library, threads in zip(_libraries(), before[1], strict=True):
            library.set_num_threads(threads)


@cache
def _libraries() -> tuple[Any, ...]:
    """Return the libraries of linear algebra that are loaded (numpy's is with numpy): looking for them takes half a millisecond."""
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)
