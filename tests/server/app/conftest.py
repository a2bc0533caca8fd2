from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server_parts import Parts


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    yield made
    made.database.close()
