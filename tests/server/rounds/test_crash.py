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
