"""One fleet of one for all tests of a module; whatever agent a test leaves running is ended after it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from tests.support.agent_bed import AgentBed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentBed]:
    bed = AgentBed(tmp_path_factory.mktemp("agent"))
    try:
        yield bed
    finally:
        bed.close()


@pytest.fixture
def bed(made: AgentBed) -> Iterator[AgentBed]:
    yield made
    if made.agent is not None:
        made.stop(signal.SIGKILL)
