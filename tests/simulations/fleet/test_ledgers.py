"""What a fleet's devices paid is read from their own ledgers, and what was altered is not believed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.shared.errors import IntegrityError
from hedgerow.shared.privacy.entries import JobOpened, SampleRange, Unprotected
from hedgerow.simulations.fleet.ledgers import read_spent

DELTA, RATE, STEPS = 1e-4, 0.1, 10


def paid(path: Path, rounds: int, noise: float = 1.5, job: str = "job") -> Path:
    """Write a device's ledger: a job of three rounds, of which so many were charged."""
    ledger = DeviceLedger(path)
    samples = SampleRange("tiny", 0, 300)
    ledger.open_job(lambda _: JobOpened(job, "r", samples, 300, 8.0, DELTA, 1.0, RATE, noise, STEPS, 3))
    for round in range(1, rounds + 1):
        assert ledger.reserve(job, round, 0, "q") is None
    ledger.close()
    return path


def by_dp_accounting(accountant: PLDAccountant | RdpAccountant, steps: int, noise: float) -> float:
    event = dp_accounting.PoissonSampledDpEvent(RATE, dp_accounting.GaussianDpEvent(noise))
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
    return float(accountant.get_epsilon(DELTA))


def test_each_device_paid_what_its_ledger_says_and_the_job_what_the_heaviest_paid(tmp_path: Path) -> None:
    ledgers = [paid(tmp_path / f"{device}.db", rounds) for device, rounds in enumerate((2, 3, 0, 2))]

    found = read_spent(ledgers, "job", DELTA)

    two, three = (by_dp_accounting(PLDAccountant(), STEPS * rounds, 1.5) for rounds in (2, 3))
    assert found.devices == pytest.approx((two, three, 0.0, two), rel=0.01)
    assert found.epsilon == pytest.approx(three, rel=0.005)
    assert found.epsilon_rdp == pytest.approx(by_dp_accounting(RdpAccountant(), 3 * STEPS, 1.5), rel=0.02)
    assert found.epsilon_replace > found.epsilon
    assert found.noise_multiplier == 1.5


def test_the_device_with_the_least_noise_is_the_one_that_counts(tmp_path: Path) -> None:
    ledgers = [paid(tmp_path / "quiet.db", 2, noise=1.0), paid(tmp_path / "loud.db", 2, noise=2.0)]

    found = read_spent(ledgers, "job", DELTA)

    assert found.noise_multiplier == 1.0
    assert found.epsilon == pytest.approx(by_dp_accounting(PLDAccountant(), 2 * STEPS, 1.0), rel=0.01)
    assert found.devices[0] is not None and found.devices[1] is not None
    assert found.devices[0] > found.devices[1] > 0


def test_devices_that_never_opened_the_job_paid_nothing_that_is_known(tmp_path: Path) -> None:
    other = DeviceLedger(tmp_path / "other.db")
    other.open_unprotected(Unprotected("job", SampleRange("tiny", 0, 3)))
    other.close()
    ledgers = [tmp_path / "other.db", tmp_path / "none.db", paid(tmp_path / "elsewhere.db", 1, job="another")]

    found = read_spent(ledgers, "job", DELTA)

    assert (found.devices, found.epsilon, found.noise_multiplier) == ((None, None, None), 0.0, None)
    assert not (tmp_path / "none.db").exists()


def test_a_ledger_that_was_altered_is_refused(tmp_path: Path) -> None:
    path = paid(tmp_path / "ledger.db", 2)
    with sqlite3.connect(path) as database:
        database.execute("DROP TRIGGER entries_keep")
        database.execute("DELETE FROM entries WHERE sequence = 2")
    database.close()

    with pytest.raises(IntegrityError):
        read_spent([path], "job", DELTA)
