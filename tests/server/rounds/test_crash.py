"""A server killed with SIGKILL at any point of a round goes on from its last committed one: real processes, real disk."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.server.rounds import crash_child

POINTS = (
    "before-plan",
    "after-plan",
    "mid-collect",
    "before-blob",
    "after-blob",
    "mid-transaction",
    "after-commit",
)


def run_server(home: Path, point: str, rule: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "tests.server.rounds.crash_child", str(home), point, rule],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ask(home: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(home / "hedgerow.db")) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = run_server(tmp_path_factory.mktemp("calm"), "none", "all")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.system
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_server_resumes_to_the_model_of_an_uninterrupted_run(
    tmp_path: Path, undisturbed: str, point: str
) -> None:
    killed = run_server(tmp_path, point, "all")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done_before = ask(tmp_path, "select rounds_done from jobs")[0][0]
    resumed = run_server(tmp_path, "none", "all")

    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == undisturbed
    expected = {"before-plan": 0, "after-plan": 0, "after-commit": crash_child.CRASH_ROUND}
    assert done_before == expected.get(point, crash_child.CRASH_ROUND - 1)
    assert ask(tmp_path, "select round, state from rounds order by round") == [
        (n, "committed") for n in range(1, crash_child.ROUNDS + 1)
    ]
    assert ask(
        tmp_path, "select round, count(*) from contributions where outcome = 'counted' group by round"
    ) == [(n, 5) for n in range(1, crash_child.ROUNDS + 1)]
    assert ask(tmp_path, "select distinct round from ledger_heads") == [(crash_child.ROUNDS,)]
    blobs = [path.name for path in (tmp_path / "blobs" / "rounds").glob("??/*")]
    assert blobs == [resumed.stdout], "models that no job needs are gone, also one left by the crash"


@pytest.mark.system
@pytest.mark.parametrize("point", ["mid-collect", "after-blob", "after-commit"])
def test_a_restart_reuses_the_cohort_that_was_drawn_before_the_kill(tmp_path: Path, point: str) -> None:
    assert run_server(tmp_path, point, "fixed").returncode == -signal.SIGKILL
    planned = ask(tmp_path, "select round, cohort from rounds order by round")
    open_round = crash_child.CRASH_ROUND + (point == "after-commit")
    assert [row[0] for row in planned] == list(range(1, open_round + 1))

    assert run_server(tmp_path, "none", "fixed").returncode == 0

    after = ask(tmp_path, "select round, cohort from rounds order by round")
    assert after[: len(planned)] == planned
    took_part = ask(tmp_path, f"select device from contributions where round = {open_round} order by device")
    assert [row[0] for row in took_part] == json.loads(str(planned[-1][1]))


CENTRAL_POINTS = ("before-plan", "after-plan", "released", "after-blob", "mid-transaction", "after-commit")


@pytest.mark.system
@pytest.mark.parametrize("point", CENTRAL_POINTS)
def test_a_kill_in_a_central_round_keeps_the_draw_and_never_charges_twice(tmp_path: Path, point: str) -> None:
    """Killed between plan and release, the round is released later for the draw and the charge that were reserved."""
    assert run_server(tmp_path, point, "poisson").returncode == -signal.SIGKILL
    rounds = ask(tmp_path, "select round, cohort, state from rounds order by round")
    charges = ask(tmp_path, "select round, state, epsilon from privacy_charges order by round")
    accounts = ask(tmp_path, "select * from privacy_accounts")
    done = {"before-plan": 0, "after-plan": 0, "after-commit": 3}.get(point, 2)
    assert ask(tmp_path, "select rounds_done from jobs") == [(done,)]
    planned = 0 if point == "before-plan" else done + 1
    assert [(row[0], row[2]) for row in rounds] == [
        (n, "committed" if n <= done else "planned") for n in range(1, planned + 1)
    ]
    assert [row[:2] for row in charges] == [
        (n, "charged" if n <= done else "reserved") for n in range(1, planned + 1)
    ], "a reservation with every plan, a charge with every release"

    resumed = run_server(tmp_path, "none", "poisson")

    assert resumed.returncode == 0, resumed.stderr
    after = ask(tmp_path, "select round, cohort, state from rounds order by round")
    assert [row[1] for row in after[:planned]] == [row[1] for row in rounds], (
        "what was drawn is never drawn again"
    )
    assert [row[2] for row in after] == ["committed"] * crash_child.ROUNDS
    final = ask(tmp_path, "select round, state, epsilon from privacy_charges order by round")
    assert [row[:2] for row in final] == [(n, "charged") for n in range(1, crash_child.ROUNDS + 1)]
    assert final[:done] == charges[:done]
    spent = [float(str(row[2])) for row in final]
    assert spent == sorted(set(spent))
    assert ask(tmp_path, "select * from privacy_accounts") == accounts, (
        "population and noise are those it began with"
    )
    for number in range(1, crash_child.ROUNDS + 1):
        took_part = ask(tmp_path, f"select device from contributions where round = {number} order by device")
        assert [row[0] for row in took_part] == json.loads(str(after[number - 1][1]))
    assert ask(tmp_path, "select model_sha256 from jobs") == [(resumed.stdout,)]
