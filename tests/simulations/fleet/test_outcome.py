"""A run's result is what its server wrote down: read from a real server's folder, with every figure where it belongs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from hedgerow.server.app.home import ServerHome
from hedgerow.server.app.setup import set_up
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.rounds.book import Contribution
from hedgerow.server.rounds.models import ModelStore
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import Commit, RoundResult
from hedgerow.server.rounds.store import RoundStore
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Database
from hedgerow.shared.job import Job, PrivacySpec
from hedgerow.shared.privacy.central import CentralPlan
from hedgerow.shared.privacy.central_report import CentralRecord
from hedgerow.simulations.fleet.ledgers import Spent
from hedgerow.simulations.fleet.outcome import (
    CLAIM,
    Left,
    device_records,
    privacy_of,
    read_left,
    round_record,
    round_records,
)
from hedgerow.simulations.run.records import WITHHELD
from hedgerow.simulations.run.results import model_sha256
from hedgerow.simulations.run.words import round_parts

N = 40_000
NAMES = ("device-0", "device-1")
VIEW = {
    "round": 3, "drawn": None, "replied": None, "rejected": None, "dropped": None, "reasons": {}, "scores": {"accuracy": 0.5},
    "epsilon": 1.25, "bytes_up": None, "bytes_down": None, "duration_s": 0.75,
}  # fmt: skip


def played(folder: Path, privacy: PrivacySpec) -> Left:
    """Return what a server left that played two rounds: in the first both counted, in the second one was refused."""
    home: ServerHome = set_up(folder, ("127.0.0.1",), gateway_port=0, operator_port=0, advertise=False)
    database = Database(home.database_url(home.read_config()))
    try:
        jobs, rounds = JobStore(database), RoundStore(database, ModelStore(Blobs(home.blobs / "rounds")))
        jobs.add("job", Job("job", "digits-cnn", privacy, rounds=2), "a" * 64, N, "")
        rounds.begin("job", np.zeros(N, np.float32), b"")
        rounds.set_scores("job", 0, {"accuracy": 0.1})
        rounds.plan(Plan("job", 1, 1, NAMES))
        both = (Contribution("device-0", "counted", "", 100), Contribution("device-1", "counted", "", 110))
        first = RoundResult(2, 2, 0, 0, {}, False, 210, 8 * N, 0.5, None, {"loss": 2.5})
        one = (
            Contribution("device-0", "counted", "", 100),
            Contribution("device-1", "rejected", "non-finite", 120),
        )
        second = RoundResult(2, 1, 1, 0, {"non-finite": 1}, False, 220, 8 * N, 0.25, None, {"loss": 2.0})
        rounds.commit(
            Commit(
                Plan("job", 1, 1, NAMES),
                first,
                (both,),
                {},
                np.ones(N, np.float32),
                b"",
                Plan("job", 2, 1, NAMES),
            )
        )
        rounds.commit(
            Commit(Plan("job", 2, 1, NAMES), second, (one,), {}, np.full(N, 2, np.float32), b"", None)
        )
        rounds.set_scores("job", 2, {"accuracy": 0.75})
    finally:
        database.close()
    return read_left(home, "job")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return played(tmp_path_factory.mktemp("outcome") / "server", PrivacySpec("none"))


def test_the_model_is_the_last_one_committed(left: Left) -> None:
    np.testing.assert_array_equal(left.model, np.full(N, 2, np.float32))
    assert model_sha256(left.model) == left.rounds[-1].model_sha256
    assert left.job.initial_scores == {"accuracy": 0.1}


def test_rounds_carry_the_servers_figures_and_what_was_done_to_the_fleet(left: Left) -> None:
    first, second = round_records(left, {2: ["device 1 killed and started"]})

    assert (first.round, first.drawn, first.counted, first.dropped, first.rejected) == (1, 2, 2, 0, {})
    assert (first.loss, first.scores, first.bytes_up, first.bytes_down) == (2.5, {}, 210, 8 * N)
    assert (second.counted, second.rejected, second.scores) == (1, {"non-finite": 1}, {"accuracy": 0.75})
    assert (first.wall_s, second.wall_s, second.simulated_s) == (0.5, 0.25, 0.75)
    assert (first.events, second.events) == ((), ("device 1 killed and started",))
    assert second.epsilon is None


def test_devices_bytes_and_rounds_add_up_to_the_rounds(left: Left) -> None:
    records = device_records(left, NAMES, ("board", "board"), (70, 80))

    assert [(one.rounds, one.n_samples, one.device_class) for one in records] == [
        (2, 70, "board"),
        (1, 80, "board"),
    ]
    assert [one.bytes_up for one in records] == [200, 230]
    assert sum(one.bytes_up for one in records) == sum(one.bytes_up for one in left.rounds)
    assert sum(one.bytes_down for one in records) == sum(one.bytes_down for one in left.rounds)


def test_without_privacy_nothing_is_claimed(left: Left) -> None:
    found = privacy_of(left)

    assert (found.mode, found.claim, found.epsilon, found.delta) == ("none", "none", None, None)


def test_with_privacy_the_claim_says_whose_charge_it_is(tmp_path: Path) -> None:
    found = privacy_of(played(tmp_path / "server", PrivacySpec("example", epsilon=8.0, delta=1e-5)))

    assert (found.mode, found.claim, found.delta) == ("example", CLAIM, 1e-5)
    assert "operating system" in found.sampling
    assert found.report["epsilon"] == 8.0


def test_epsilon_of_a_private_job_is_that_of_the_devices_ledgers(tmp_path: Path) -> None:
    left = played(tmp_path / "server", PrivacySpec("example", epsilon=8.0, delta=1e-5))
    spent = Spent(2.5, 2.75, 3.5, 1.25, (2.5, None))

    found = privacy_of(left, spent)

    assert (found.epsilon, found.epsilon_rdp, found.epsilon_replace) == (2.5, 2.75, 3.5)
    assert found.noise_multiplier == 1.25
    assert "devices' own ledgers; the server heard nothing" in found.notes[0]
    records = device_records(left, NAMES, ("board", "board"), (70, 80), spent)
    assert [one.epsilon for one in records] == [2.5, None]
    assert [one.epsilon for one in device_records(left, NAMES, ("board", "board"), (70, 80))] == [None, None]


def test_epsilon_of_a_central_job_is_that_of_the_servers_ledger(tmp_path: Path) -> None:
    plan = CentralPlan(0.5, 2, 2.0, 1.0, 2, 1e-5, 1.5)
    left = played(tmp_path / "server", PrivacySpec("none"))
    privacy = PrivacySpec("central-poisson", noise_multiplier=2.0, delta=1e-5, clip_norm_l2=1.0)
    job = msgspec.structs.replace(
        left.job, job=msgspec.structs.replace(left.job.job, privacy=privacy), epsilon=1.5
    )

    found = privacy_of(left._replace(job=job, central=CentralRecord(plan)))

    figures = found.report["figures"]
    assert found.epsilon == 1.5
    assert (found.epsilon_rdp, found.epsilon_replace) == (figures["epsilon_rdp"], figures["epsilon_replace"])
    assert 0 < figures["epsilon_pld"] < figures["epsilon_rdp"]
    assert found.noise_multiplier == 2.0


def test_a_line_of_progress_leaves_out_what_is_withheld() -> None:
    line = "  ".join(round_parts(round_record(VIEW, [], 2.0), 5, "accuracy"))

    assert line == f"round 3/5  accuracy 0.5  ε 1.25  2.0 s simulated  {WITHHELD}"


def test_counts_that_a_view_withholds_are_none_seen() -> None:
    record = round_record(VIEW, ["server killed and started"], 2.0)

    assert (record.drawn, record.counted, record.dropped, record.bytes_up) == (0, 0, 0, 0)
    assert (record.epsilon, record.wall_s, record.simulated_s, record.loss) == (1.25, 0.75, 2.0, None)
    assert record.events == ("server killed and started", WITHHELD)
