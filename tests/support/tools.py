"""Programs that some tests need and some machines lack."""

from __future__ import annotations

import shutil

import pytest


def need_program(name: str) -> str:
    """Return the path of a program; skips the test, saying so, where it is missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not on PATH")
    return found
