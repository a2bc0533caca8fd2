"""The device's ledger: charged before training, released before sending, whatever is killed in between."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.trainer.ledger import DeviceLedger, StoredUpdate
from hedgerow.shared.errors import BudgetError, IntegrityError, StorageError
from hedgerow.shared.privacy.entries import JobOpened, SampleRange, Unprotected
from hedgerow.shared.privacy.ledger_file import verify
from hedgerow.shared.privacy.statement import recompute_job


def opened(job_id: str = "job", rounds: int = 3) -> JobOpened:
    return JobOpened(job_id, "r", SampleRange("tiny", 0, 300), 300, 8.0, 1e-4, 1.0, 0.1, 1.5, 10, rounds)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def open_with_job(path: Path, job_id: str = "job", rounds: int = 3) -> DeviceLedger:
    ledger = DeviceLedger(path)
    ledger.open_job(lambda _: opened(job_id, rounds))
    return ledger


def steps(path: Path, job_id: str = "job") -> int:
    return verify(path).state.jobs[job_id].steps


def test_a_reservation_is_on_disk_before_training_begins(path: Path) -> None:
    ledger = open_with_job(path)

    assert ledger.reserve("job", 1, 0, "q") is None

    assert steps(path) == 10
    assert verify(path).state.jobs["job"].released == {}


def test_a_released_update_is_sent_again_and_charged_once(path: Path) -> None:
    ledger = open_with_job(path)
    ledger.reserve("job", 1, 0, "q")
    head = ledger.release("job", 1, 0, "q", b"noisy update")

    again = ledger.reserve("job", 1, 0, "q")

    assert again == StoredUpdate(b"noisy update", head)
    assert steps(path) == 10


def test_the_stored_update_survives_a_restart(path: Path) -> None:
    ledger = open_with_job(path)
    ledger.reserve("job", 1, 0, "q")
    head = ledger.release("job", 1, 0, "q", b"noisy update")
    ledger.close()

    assert DeviceLedger(path).reserve("job", 1, 0, "q") == StoredUpdate(b"noisy update", head)


def test_a_round_reserved_and_never_released_keeps_its_one_charge(path: Path) -> None:
    open_with_job(path).reserve("job", 1, 0, "q")

    assert DeviceLedger(path).reserve("job", 1, 0, "q") is None
    assert steps(path) == 10


def test_a_released_round_is_not_trained_again_for_another_model(path: Path) -> None:
    ledger = open_with_job(path)
    ledger.reserve("job", 1, 0, "q")
    ledger.release("job", 1, 0, "q", b"x")

    with pytest.raises(BudgetError, match="not trained twice"):
        ledger.reserve("job", 1, 0, "another")


def test_a_round_before_the_last_one_released_is_not_trained_again(path: Path) -> None:
    ledger = open_with_job(path)
    for number in (1, 2):
        ledger.reserve("job", number, 0, "q")
        ledger.release("job", number, 0, "q", b"%d" % number)

    with pytest.raises(BudgetError, match="round 1"):
        ledger.reserve("job", 1, 0, "q")
    assert ledger.reserve("job", 2, 0, "q") is not None
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM updates").fetchone() == (1,)


def test_more_rounds_than_planned_are_refused(path: Path) -> None:
    ledger = open_with_job(path)
    for number in (1, 2, 3):
        ledger.reserve("job", number, 0, "q")

    with pytest.raises(BudgetError, match="3 rounds"):
        ledger.reserve("job", 4, 0, "q")
    with pytest.raises(BudgetError, match="3 rounds"):
        ledger.reserve("job", 1, 1, "q")
    assert steps(path) == 30


def test_a_closed_job_charges_nothing_more_and_keeps_no_update(path: Path) -> None:
    ledger = open_with_job(path)
    ledger.reserve("job", 1, 0, "q")
    ledger.release("job", 1, 0, "q", b"x")
    ledger.close_job("job")
    ledger.close_job("job")
    ledger.close_job("never heard of")

    with pytest.raises(BudgetError, match="closed"):
        ledger.reserve("job", 2, 0, "q")
    with pytest.raises(BudgetError):
        ledger.reserve("job", 1, 0, "q")
    assert verify(path).state.jobs["job"].planned_steps == 10


def test_the_head_grows_with_every_entry_and_covers_the_release(path: Path) -> None:
    ledger = open_with_job(path)
    heads = [ledger.head()]
    ledger.reserve("job", 1, 0, "q")
    heads.append(ledger.head())
    heads.append(ledger.release("job", 1, 0, "q", b"x"))

    assert len(set(heads)) == 3
    assert heads[-1] == ledger.head() == verify(path).head.hex()
    assert len(heads[-1]) == 64


def test_a_release_without_a_reservation_is_undone(path: Path) -> None:
    ledger = open_with_job(path)
    before = ledger.head()

    with pytest.raises(IntegrityError, match="without reserving"):
        ledger.release("job", 1, 0, "q", b"x")

    assert ledger.head() == before == verify(path).head.hex()
    assert ledger.reserve("job", 1, 0, "q") is None


def test_a_plan_that_cannot_be_made_leaves_no_trace(path: Path) -> None:
    ledger = DeviceLedger(path)

    def refuse(_: object) -> JobOpened:
        raise BudgetError("spent")

    with pytest.raises(BudgetError):
        ledger.open_job(refuse)
    assert verify(path).length == 0
    ledger.open_job(lambda _: opened())


def test_two_processes_on_one_ledger_see_each_others_entries(path: Path) -> None:
    first, second = open_with_job(path), DeviceLedger(path)

    second.reserve("job", 1, 0, "q")
    first.reserve("job", 2, 0, "q")
    second.open_job(lambda state: opened("other", rounds=len(state.jobs["job"].reserved)))

    assert first.state().jobs["other"].opened.rounds == 2
    assert verify(path).length == 4


def test_appends_from_several_threads_form_one_chain(path: Path) -> None:
    open_with_job(path, rounds=40).close()

    def work(first: int) -> None:
        ledger = DeviceLedger(path)
        for number in range(first, first + 10):
            ledger.reserve("job", number, 0, "q")
        ledger.close()

    threads = [threading.Thread(target=work, args=(10 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert verify(path).length == 41
    assert steps(path) == 400


def test_unprotected_jobs_are_recorded_once(path: Path) -> None:
    ledger = DeviceLedger(path)

    for up_to in (5, 9):
        ledger.open_unprotected(Unprotected("open", SampleRange("tiny", 0, up_to)))

    assert verify(path).length == 1
    assert ledger.state().unprotected["open"].samples.up_to_id == 5


def test_an_altered_ledger_is_not_opened(path: Path) -> None:
    ledger = open_with_job(path)
    ledger.reserve("job", 1, 0, "q")
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER entries_keep")
        db.execute("DELETE FROM entries WHERE sequence = 1")

    with pytest.raises(IntegrityError, match="entry 1"):
        DeviceLedger(path)


def test_an_altered_stored_update_is_not_sent(path: Path) -> None:
    ledger = open_with_job(path)
    ledger.reserve("job", 1, 0, "q")
    ledger.release("job", 1, 0, "q", b"x")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE updates SET payload = x'00'")

    with pytest.raises(IntegrityError, match="damaged"):
        ledger.reserve("job", 1, 0, "q")


def test_a_file_that_is_no_database_is_damage_and_a_missing_folder_is_storage(path: Path) -> None:
    path.write_bytes(b"scribble" * 1000)

    with pytest.raises(IntegrityError, match="damaged"):
        DeviceLedger(path)
    with pytest.raises(StorageError, match="cannot be opened"):
        DeviceLedger(path.parent / "nowhere" / "ledger.db")


def test_a_ledger_of_a_newer_version_is_left_alone(path: Path) -> None:
    DeviceLedger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")

    with pytest.raises(StorageError, match="schema 9"):
        DeviceLedger(path)


def test_a_full_disk_refuses_the_charge_and_keeps_what_was_there(path: Path) -> None:
    ledger = open_with_job(path)
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    ledger.reserve("job", 1, 0, "q")

    with pytest.raises(StorageError, match="cannot be written"):
        ledger.release("job", 1, 0, "q", bytes(1_000_000))

    assert steps(path) == 10
    assert verify(path).state.jobs["job"].released == {}
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    ledger.release("job", 1, 0, "q", bytes(1_000_000))
    assert len(verify(path).state.jobs["job"].released) == 1


def test_the_file_is_written_through_to_the_disk(path: Path) -> None:
    ledger = DeviceLedger(path)

    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


KILLED = """
import os, signal, sys
from pathlib import Path
from hedgerow.edge_agent.trainer.ledger import DeviceLedger
ledger = DeviceLedger(Path(sys.argv[1]))
ledger.reserve("job", 1, 0, "q")
if sys.argv[2] == "released":
    ledger.release("job", 1, 0, "q", b"noisy update")
if sys.argv[2] == "releasing":
    with ledger._transaction():
        ledger._append(__import__("hedgerow.shared.privacy.entries", fromlist=["x"]).Released("job", 1, 0, "q", "aa"))
        os.kill(os.getpid(), signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_and_kill(path: Path, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), moment], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["reserved", "releasing"])
def test_killed_before_the_release_is_durable_the_round_is_trained_again_under_one_charge(
    path: Path, moment: str
) -> None:
    open_with_job(path).close()

    run_and_kill(path, moment)

    assert steps(path) == 10
    ledger = DeviceLedger(path)
    assert ledger.reserve("job", 1, 0, "q") is None
    ledger.release("job", 1, 0, "q", b"another")
    assert recompute_job(path, "job").steps == 10


def test_killed_after_the_release_the_same_bytes_are_sent(path: Path) -> None:
    open_with_job(path).close()

    run_and_kill(path, "released")

    again = DeviceLedger(path).reserve("job", 1, 0, "q")
    assert again is not None
    assert again.payload == b"noisy update"
    assert steps(path) == 10


def test_readers_of_the_file_need_no_clean_end(path: Path) -> None:
    open_with_job(path).close()
    run_and_kill(path, "released")

    assert recompute_job(path, "job").rounds_released == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "release", "restart"]), st.integers(1, 4), st.sampled_from("qr")
        ),
        max_size=15,
    )
)
@settings(max_examples=30, deadline=None)
def test_whatever_order_of_retries_and_restarts_each_round_is_charged_and_shown_at_most_once(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, str]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    ledger = open_with_job(path)
    shown: dict[int, set[bytes]] = {}
    for n, (action, number, request) in enumerate(actions):
        try:
            if action == "restart":
                ledger.close()
                ledger = DeviceLedger(path)
                continue
            again = ledger.reserve("job", number, 0, request)
            if again is not None:
                shown.setdefault(number, set()).add(again.payload)
            elif action == "release":
                ledger.release("job", number, 0, request, b"update %d" % n)
                shown.setdefault(number, set()).add(b"update %d" % n)
        except BudgetError:
            continue
    ledger.close()

    account = verify(path).state.jobs["job"]
    assert all(len(payloads) == 1 for payloads in shown.values())
    assert {number for number, _ in account.released} == set(shown)
    assert account.steps == 10 * len(account.reserved) <= 30
    assert set(account.released) <= set(account.reserved)


def test_nothing_of_the_ledger_module_loads_a_heavy_library() -> None:
    code = (
        "import sys, hedgerow.edge_agent.trainer.ledger\n"
        "bad = {'torch', 'flwr', 'opacus', 'dp_accounting', 'onnx', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
