"""Makes freed uploads leave the process: glibc otherwise keeps and splinters them."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # mallopt(3)
_BLOCK_BYTES = 256 * 1024


def return_large_blocks() -> bool:
    """Have blocks of 256 KiB and more mapped one by one, so that freeing one gives it back; False where libc cannot.

    glibc raises this threshold by itself, up to 32 MiB, each time such a block is freed; 1 MiB chunks of many uploads
    then share one heap, which grew by more than one model copy over a hundred uploads of two at a time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt.restype = ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES))
