"""Switching bundles while several threads ask: no answer is lost, mixed up or late by more than one switch."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from tests.support.agent_profile import profile
from tests.support.bundles import WindowNet, normal_windows, write_bundle

from hedgerow.edge_agent.inference.chain import Chain
from hedgerow.edge_agent.inference.engine import Engine

HISTORY = normal_windows(60, 3)
ASKED = normal_windows(8, 50)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("bundles")
    for version in (1, 2, 3):
        write_bundle(root / str(version) / "slot", WindowNet(version), version=version)
    return [root / str(version) / "slot" for version in (1, 2, 3)]


def engine(state: Path, runtime: str) -> Engine:
    return Engine(profile((runtime,)), state, lambda spec, limit: HISTORY[:limit])  # type: ignore[arg-type]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_every_answer_under_swaps_is_exactly_one_versions_own(
    tmp_path: Path, folders: list[Path], runtime: str
) -> None:
    expected = {}
    for folder in folders:
        alone = engine(tmp_path / "alone", runtime)
        alone.load(folder)
        for n, window in enumerate(ASKED):
            found = alone.predict("window", window)
            expected[found.source.version, n] = found.answer.score
        alone.close()
    serving = engine(tmp_path / "state", runtime)
    serving.load(folders[0])
    wrong: list[str] = []
    counts = [0, 0, 0]
    stop = threading.Event()

    def ask(which: int) -> None:
        while not stop.is_set():
            n = counts[which] % len(ASKED)
            found = serving.predict("window", ASKED[n])
            if found.reason != "champion" or found.answer.score != expected[found.source.version, n]:
                wrong.append(f"{found.reason} {found.source.version} {found.detail}")
            counts[which] += 1

    threads = [threading.Thread(target=ask, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        serving.load(folders[turn % 3])
    stop.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert min(counts) > 10
    assert serving.predictions_total == sum(counts)


def test_several_threads_at_once_are_all_answered_and_counted(tmp_path: Path, folders: list[Path]) -> None:
    serving = engine(tmp_path, "litert")
    serving.load(folders[0])
    expected = [serving.predict("window", window).answer.score for window in ASKED]
    wrong: list[int] = []

    def ask() -> None:
        for turn in range(200):
            n = turn % len(ASKED)
            if serving.predict("window", ASKED[n]).answer.score != expected[n]:
                wrong.append(n)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert serving.predictions_total == 800 + len(ASKED)
    assert sum(serving.latency()["pump"].counts) == 800 + len(ASKED)


def test_a_caller_on_its_way_to_a_retired_bundle_gets_an_answer_from_the_next(
    tmp_path: Path, folders: list[Path]
) -> None:
    serving = engine(tmp_path, "onnxruntime")
    serving.load(folders[0])
    stale = serving._chains["window"]
    serving.load(folders[1])
    serving.load(folders[2])
    fresh = serving._chains
    reads: list[str] = []

    class FirstStale(dict[str, Chain]):
        """Hands out the retired chain once, as a thread would have read it before the switch."""

        def __getitem__(self, name: str) -> Chain:
            reads.append(name)
            return stale if len(reads) == 2 else fresh[name]

    serving._chains = FirstStale(fresh)
    found = serving.predict("window", np.zeros((8, 3), np.float32))

    assert (found.reason, found.source.version) == ("champion", 3)
    assert len(reads) == 3, "asked once too early, and again"
