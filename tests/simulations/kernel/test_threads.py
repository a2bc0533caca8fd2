"""Arithmetic stays on one thread where workers have a core each, and gets its threads back afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from hedgerow.simulations.kernel.threads import one_thread


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    with threadpool_limits(2, "blas"):
        torch.set_num_threads(2)
        yield
    torch.set_num_threads(before)


def test_torch_and_numpy_have_one_thread_within_and_theirs_afterwards() -> None:
    before = blas_threads()

    with one_thread():
        assert torch.get_num_threads() == 1
        assert set(blas_threads()) <= {1}

    assert torch.get_num_threads() == 2
    assert blas_threads() == before


def test_threads_come_back_when_something_is_raised() -> None:
    before = blas_threads()

    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError

    assert (torch.get_num_threads(), blas_threads()) == (2, before)


def test_a_process_forked_within_has_one_thread_too() -> None:
    large = np.ones((1500, 1500), np.float32)
    with one_thread():
        child = os.fork()
        if child == 0:
            large @ large
            os._exit(
                0 if set(blas_threads()) <= {1} and len(list(Path("/proc/self/task").iterdir())) == 1 else 1
            )

    assert os.waitpid(child, 0)[1] == 0
