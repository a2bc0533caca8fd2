"""Plans, releases and progress on disk."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from tests.support.job_parts import open_database

from hedgerow.server.jobs.store import JobStore
from hedgerow.server.ledger.heads import Claim
from hedgerow.server.rounds.book import Contribution
from hedgerow.server.rounds.models import ModelStore
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import Commit, RoundResult
from hedgerow.server.rounds.store import RoundStore
from hedgerow.server.store.blobs import Blobs
from hedgerow.shared.errors import IntegrityError, StorageError
from hedgerow.shared.job import Job, PrivacySpec

SMALL, LARGE = 8, 40_000
RESULT = RoundResult(2, 1, 1, 0, {"stale": 1}, False, 10, 20, 0.5, 1.5, {})


class Bench:
    def __init__(self, home: Path, n: int) -> None:
        self.n = n
        self.blobs = Blobs(home / "blobs")
        database = open_database(home)
        self.jobs = JobStore(database)
        self.rounds = RoundStore(database, ModelStore(self.blobs))
        self.add("j")

    def add(self, job_id: str, fill: float = 0.0) -> None:
        self.jobs.add(job_id, Job("t", "r", PrivacySpec("none")), "a" * 64, self.n, "")
        self.rounds.begin(job_id, np.full(self.n, fill, np.float32), b"")
        self.rounds.plan(Plan(job_id, 1, 1, ("a", "b")))

    def commit(self, round: int, fill: float, state: bytes = b"", job_id: str = "j") -> str:
        return self.rounds.commit(
            Commit(
                Plan(job_id, round, 1, ("a", "b")),
                RESULT,
                ((Contribution("a", "counted"), Contribution("b", "rejected", "stale")),),
                {"a": Claim(round, f"h{round}", 2 * round, float(round), 1e-6)},
                np.full(self.n, fill, np.float32),
                state,
                Plan(job_id, round + 1, 1, ("a",)),
            )
        )

    def files(self) -> int:
        return len(list(self.blobs.root.glob("??/*")))


@pytest.fixture(params=[SMALL, LARGE], ids=["inline", "blob"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path, request.param)


def test_a_commit_moves_everything_at_once(bench: Bench) -> None:
    digest = bench.commit(1, 1.0, b"moments")
    progress = bench.rounds.load("j")
    assert progress.rounds_done == 1
    assert progress.model.tolist() == [1.0] * bench.n
    assert progress.state == b"moments"
    assert progress.plan == Plan("j", 2, 1, ("a",))
    assert progress.heads == {"a": Claim(1, "h1", 2, 1.0, 1e-6)}
    record = bench.jobs.rounds("j")[0]
    assert (record.round, record.replied, record.reasons, record.model_sha256) == (1, 1, {"stale": 1}, digest)


@pytest.mark.parametrize("round", [1, 3])
def test_a_round_that_does_not_follow_is_refused_so_nothing_is_released_twice(
    bench: Bench, round: int
) -> None:
    bench.commit(1, 1.0)
    with pytest.raises(StorageError, match=f"round {round} is not the one that follows"):
        bench.commit(round, 9.0)
    assert bench.rounds.load("j").model.tolist() == [1.0] * bench.n
    assert len(bench.jobs.rounds("j")) == 1


def test_a_commit_that_fails_halfway_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk")

    monkeypatch.setattr(bench.rounds, "_write_heads", fail)
    with pytest.raises(RuntimeError):
        bench.commit(1, 1.0)
    progress = bench.rounds.load("j")
    assert (progress.rounds_done, progress.heads, progress.plan) == (0, {}, Plan("j", 1, 1, ("a", "b")))
    assert bench.jobs.cohort("j", 1) is not None
    assert bench.jobs.cohort("j", 2) is None


def test_begin_never_replaces_a_model_that_is_there(bench: Bench) -> None:
    bench.commit(1, 1.0)
    bench.rounds.begin("j", np.zeros(bench.n, np.float32), b"")
    assert bench.rounds.load("j").model.tolist() == [1.0] * bench.n


def test_another_attempt_takes_the_place_of_the_aborted_plan(bench: Bench) -> None:
    bench.rounds.plan(Plan("j", 1, 2, ("b",)))
    assert bench.rounds.load("j").plan == Plan("j", 1, 2, ("b",))


def test_a_job_without_a_model_cannot_be_taken_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SMALL)
    bench.jobs.add("k", Job("t", "r", PrivacySpec("none")), "a" * 64, 3, "")
    with pytest.raises(StorageError, match="no model"):
        bench.rounds.load("k")


def test_old_models_go_and_the_disk_stays_small(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LARGE)
    for round in range(1, 6):
        bench.commit(round, float(round), f"state {round}".encode())
        assert bench.files() == 2


def test_a_model_that_another_job_stands_on_stays(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LARGE)
    bench.add("k")  # the same untrained model: the same blob
    assert bench.files() == 1
    bench.commit(1, 1.0)
    assert bench.rounds.load("k").model.tolist() == [0.0] * LARGE


def test_a_round_that_leaves_the_model_as_it_was_keeps_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LARGE)
    bench.commit(1, 0.0)
    assert bench.rounds.load("j").model.tolist() == [0.0] * LARGE


def test_a_sweep_removes_what_a_crash_left_and_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LARGE)
    bench.commit(1, 1.0, b"state")
    bench.blobs.put(b"left over")
    assert bench.rounds.sweep() == 1
    assert bench.rounds.load("j").state == b"state"


def test_a_damaged_model_is_an_error_not_a_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LARGE)
    path = bench.blobs.path(bench.commit(1, 1.0))
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    with pytest.raises(IntegrityError):
        bench.rounds.load("j")


def test_jobs_that_share_bytes_commit_from_threads_without_losing_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LARGE)
    bench.add("k")

    def rounds(job_id: str) -> None:
        for round in range(1, 9):
            bench.commit(round, float(round % 2), job_id=job_id)

    threads = [threading.Thread(target=rounds, args=(job_id,)) for job_id in ("j", "k")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job_id in ("j", "k"):
        assert bench.rounds.load(job_id).rounds_done == 8
