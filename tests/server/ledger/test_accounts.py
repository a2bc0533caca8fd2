"""The ledger on disk: opened once, reserved once, charged once; what it refuses leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError as KeyTakenError
from tests.support.job_parts import open_database

from hedgerow.server.jobs.store import JobStore
from hedgerow.server.ledger.accounts import PrivacyLedger, charge, reserve
from hedgerow.server.rounds.tables import ContributionRow
from hedgerow.server.store.database import Database
from hedgerow.shared.errors import BudgetError, ConfigError, IntegrityError, StorageError
from hedgerow.shared.job import CohortSpec, Job, PrivacySpec
from hedgerow.shared.privacy.events import CentralRounds

DEVICES = tuple(f"d{n:02}" for n in range(20))
CENTRAL = Job(
    name="t",
    recipe="r",
    rounds=5,
    privacy=PrivacySpec(mode="central-poisson", noise_multiplier=1.5, delta=1e-3),
    cohort=CohortSpec(rule="poisson", rate=0.2),
)
MODEL = "b" * 64
NONE = Job(name="t", recipe="r", privacy=PrivacySpec("none"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def ledger(database: Database) -> PrivacyLedger:
    return PrivacyLedger(database)


def submit(database: Database, job_id: str, job: Job = CENTRAL) -> None:
    JobStore(database).add(job_id, job, "a" * 64, 10, "")


def charges(database: Database) -> list[tuple[object, ...]]:
    with database.transaction() as session:
        rows = session.execute(
            text("select job_id, round, state, epsilon from privacy_charges order by job_id, round")
        )
        return [tuple(row) for row in rows]


def run(database: Database, act: object, *arguments: object) -> None:
    with database.transaction() as session:
        act(session.connection(), *arguments)  # type: ignore[operator]


def test_an_account_is_kept_as_it_was_opened_over_a_restart(
    database: Database, ledger: PrivacyLedger
) -> None:
    submit(database, "j")
    opened = ledger.open("j", CENTRAL, DEVICES)

    again = PrivacyLedger(database, device_budget=0.001).open("j", CENTRAL, ("other",))

    assert again == opened
    assert (again.devices, again.plan.population, again.plan.noise_multiplier) == (DEVICES, 20, 1.5)


def test_a_preview_is_what_opening_gives_and_writes_nothing(
    database: Database, ledger: PrivacyLedger
) -> None:
    submit(database, "j")

    seen = ledger.preview(CENTRAL, DEVICES)

    assert ledger.accounts() == []
    assert ledger.open("j", CENTRAL, DEVICES).plan == seen.plan


def test_a_round_is_reserved_then_charged_with_its_epsilon(database: Database, ledger: PrivacyLedger) -> None:
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)

    run(database, reserve, "j", 1)
    assert charges(database) == [("j", 1, "reserved", None)]
    run(database, charge, "j", 1, 0.7, MODEL)
    assert charges(database) == [("j", 1, "charged", 0.7)]
    record = JobStore(database).get("j")
    assert record is not None
    assert (record.epsilon, record.delta) == (0.7, 1e-3)


def test_a_round_cannot_be_reserved_twice(database: Database, ledger: PrivacyLedger) -> None:
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)
    run(database, reserve, "j", 1)

    with pytest.raises(KeyTakenError):
        run(database, reserve, "j", 1)
    run(database, charge, "j", 1, 0.7, MODEL)
    with pytest.raises(KeyTakenError):
        run(database, reserve, "j", 1)
    assert charges(database) == [("j", 1, "charged", 0.7)]


def test_a_round_cannot_be_charged_twice_nor_without_a_reservation(
    database: Database, ledger: PrivacyLedger
) -> None:
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)

    with pytest.raises(IntegrityError, match="not reserved"):
        run(database, charge, "j", 1, 0.7, MODEL)
    run(database, reserve, "j", 1)
    run(database, charge, "j", 1, 0.7, MODEL)
    with pytest.raises(IntegrityError, match="not reserved"):
        run(database, charge, "j", 1, 0.9, MODEL)
    assert charges(database) == [("j", 1, "charged", 0.7)]


@pytest.mark.parametrize("round", [0, 6, -1, 100])
def test_a_round_that_was_not_planned_cannot_be_reserved(
    database: Database, ledger: PrivacyLedger, round: int
) -> None:
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)

    with pytest.raises(BudgetError, match="not one of the 5"):
        run(database, reserve, "j", round)
    assert charges(database) == []


def test_a_charge_in_a_transaction_that_fails_is_no_charge(database: Database, ledger: PrivacyLedger) -> None:
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)
    run(database, reserve, "j", 1)

    with pytest.raises(RuntimeError), database.transaction() as session:
        charge(session.connection(), "j", 1, 0.7, MODEL)
        raise RuntimeError("the disk is full")

    assert charges(database) == [("j", 1, "reserved", None)]


def test_jobs_without_an_account_are_let_through(database: Database) -> None:
    submit(database, "plain", NONE)

    run(database, reserve, "plain", 1)
    run(database, charge, "plain", 1, None, MODEL)

    assert charges(database) == []


def test_a_job_that_was_cut_short_gives_back_what_it_never_began(
    database: Database, ledger: PrivacyLedger
) -> None:
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)
    for round in (1, 2, 3):
        run(database, reserve, "j", round)
    run(database, charge, "j", 1, 0.7, MODEL)
    run(database, charge, "j", 2, 0.9, MODEL)
    rounds = [event.rounds for event in ledger.accounts()[0].committed() if isinstance(event, CentralRounds)]
    assert rounds == [5]

    JobStore(database).move("j", "cancelled")

    (account,) = ledger.accounts()
    assert account.closed
    assert account.committed() == (CentralRounds(0.2, 1.5, 3),), "the third was reserved: it counts"


def test_a_job_in_packaging_or_delivered_counts_with_every_round(
    database: Database, ledger: PrivacyLedger
) -> None:
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)
    for round in range(1, 6):
        run(database, reserve, "j", round)
        run(database, charge, "j", round, 0.1 * round, MODEL)

    for state in ("packaging", "delivered"):
        JobStore(database).move("j", state)
        assert ledger.accounts()[0].committed() == (CentralRounds(0.2, 1.5, 5),)


def test_later_jobs_compose_with_earlier_ones_over_any_shared_device(
    database: Database, ledger: PrivacyLedger
) -> None:
    for job_id in ("a", "b", "c"):
        submit(database, job_id)
    first = ledger.open("a", CENTRAL, DEVICES)
    apart = ledger.open("b", CENTRAL, ("x", "y"))
    third = ledger.open("c", CENTRAL, ("x", DEVICES[0]))

    assert (first.earlier, apart.earlier) == ((), ())
    assert third.earlier == (*first.committed(), *apart.committed())
    assert third.plan.epsilon > first.plan.epsilon


def test_a_job_over_the_budget_is_refused_and_leaves_no_account(database: Database) -> None:
    ledger = PrivacyLedger(database, device_budget=3.0)
    refused_at = None
    for number in range(20):
        submit(database, f"j{number}")
        try:
            ledger.open(f"j{number}", CENTRAL, DEVICES)
        except BudgetError as error:
            refused_at = number
            assert "budget of 3" in str(error)
            break

    assert refused_at is not None
    assert refused_at >= 1
    assert len(ledger.accounts()) == refused_at
    assert all(account.plan.epsilon <= 3.0 for account in ledger.accounts())
    with pytest.raises(BudgetError):
        ledger.preview(CENTRAL, DEVICES)


def test_two_jobs_opened_at_once_do_not_both_take_the_last_of_the_budget(database: Database) -> None:
    one = PrivacyLedger(database).preview(CENTRAL, DEVICES).plan.epsilon
    ledger = PrivacyLedger(database, device_budget=one * 1.1)
    outcomes: list[str] = []

    def open_one(job_id: str) -> None:
        try:
            ledger.open(job_id, CENTRAL, DEVICES)
            outcomes.append("opened")
        except BudgetError:
            outcomes.append("refused")

    for job_id in ("a", "b", "c"):
        submit(database, job_id)
    threads = [threading.Thread(target=open_one, args=(job_id,)) for job_id in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["opened", "refused", "refused"]
    assert len(ledger.accounts()) == 1


@pytest.mark.parametrize(
    ("device", "outcome", "exposed"),
    [("d03", "counted", True), ("d03", "missing", False), ("elsewhere", "counted", False)],
)
def test_an_account_says_whether_jobs_without_device_level_privacy_had_these_devices(
    database: Database, ledger: PrivacyLedger, device: str, outcome: str, exposed: bool
) -> None:
    submit(database, "plain", NONE)
    submit(database, "j")
    with database.transaction() as session:
        row = {"job_id": "plain", "round": 1, "exchange": 0, "device": device, "outcome": outcome}
        session.execute(insert(ContributionRow).values(**row))

    assert ledger.open("j", CENTRAL, DEVICES).earlier_unprotected == exposed


def test_contributions_to_central_jobs_themselves_expose_nobody(
    database: Database, ledger: PrivacyLedger
) -> None:
    for job_id in ("a", "b"):
        submit(database, job_id)
    ledger.open("a", CENTRAL, DEVICES)
    with database.transaction() as session:
        row = {"job_id": "a", "round": 1, "exchange": 0, "device": "d03", "outcome": "counted"}
        session.execute(insert(ContributionRow).values(**row))

    assert not ledger.open("b", CENTRAL, DEVICES).earlier_unprotected


@pytest.mark.parametrize("column", ["plan", "devices", "earlier"])
def test_a_damaged_account_is_refused_by_name(database: Database, ledger: PrivacyLedger, column: str) -> None:
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)
    with database.transaction() as session:
        session.execute(text(f"update privacy_accounts set {column} = '{{oops'"))

    with pytest.raises(IntegrityError, match="account of job j is damaged"):
        ledger.accounts()


def test_a_job_of_another_mode_gets_no_account(database: Database, ledger: PrivacyLedger) -> None:
    submit(database, "plain", NONE)

    with pytest.raises(ConfigError, match=r"privacy\.mode"):
        ledger.open("plain", NONE, DEVICES)
    assert ledger.account("plain") is None


def released(database: Database, ledger: PrivacyLedger, rounds: int = 5) -> str:
    """Charge some rounds of a job and return its id."""
    submit(database, "j")
    ledger.open("j", CENTRAL, DEVICES)
    for round in range(1, rounds + 1):
        run(database, reserve, "j", round)
        run(database, charge, "j", round, 0.1 * round, f"{round}" * 64)
    return "j"


def test_charges_are_a_chain_whose_end_commits_to_all_of_them(
    database: Database, ledger: PrivacyLedger
) -> None:
    released(database, ledger, 3)
    after_three = ledger.verify("j")
    run(database, reserve, "j", 4)
    assert ledger.verify("j") == after_three, "a reservation is no charge"
    run(database, charge, "j", 4, 0.4, MODEL)

    assert ledger.verify("j") != after_three
    assert PrivacyLedger(database).verify("j") == ledger.verify("j")
    record = ledger.record("j")
    assert record is not None
    assert record.ledger_head == ledger.verify("j")


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ("update privacy_charges set epsilon = 0.01 where round = 3", 3),
        ("update privacy_charges set model_sha256 = 'c' where round = 1", 1),
        ("delete from privacy_charges where round = 2", 2),
        ("update privacy_charges set state = 'reserved' where round = 4", 4),
        ("update privacy_charges set hash = '' where round = 5", 5),
        ("update privacy_accounts set devices = '[\"d00\"]'", 1),
        ("update privacy_accounts set earlier_unprotected = 1", 1),
        ("update privacy_accounts set plan = replace(plan, '1.5', '2.5')", 1),
    ],
)
def test_a_ledger_that_was_altered_is_noticed_at_the_first_round_that_is_off(
    database: Database, ledger: PrivacyLedger, change: str, at: int
) -> None:
    released(database, ledger)
    ledger.verify("j")
    with database.transaction() as session:
        session.execute(text(change))

    with pytest.raises(IntegrityError, match=f"job j is altered at round {at}"):
        ledger.verify("j")
    with pytest.raises(IntegrityError):
        ledger.record("j")


def test_a_charge_taken_off_the_end_is_seen_by_who_kept_the_head(
    database: Database, ledger: PrivacyLedger
) -> None:
    released(database, ledger)
    kept = ledger.verify("j")
    with database.transaction() as session:
        session.execute(text("delete from privacy_charges where round = 5"))

    assert ledger.verify("j") != kept


def test_a_job_without_an_account_has_no_record_and_no_chain(
    database: Database, ledger: PrivacyLedger
) -> None:
    submit(database, "plain", NONE)

    assert ledger.record("plain") is None
    with pytest.raises(StorageError, match="no account"):
        ledger.verify("plain")
