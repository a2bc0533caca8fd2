"""Where the SKAB recordings are, if they are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def skab_folder() -> Path:
    """Return the folder with the recordings; skips the test, saying so, where there is none."""
    named = os.environ.get("HEDGEROW_SKAB")
    beside = Path(__file__).parents[3] / "shared" / "data" / "skab"
    folder = Path(named) if named else beside
    if not (folder / "valve1").is_dir():
        pytest.skip("the SKAB recordings are not here: set HEDGEROW_SKAB to a folder that holds valve1/")
    return folder
