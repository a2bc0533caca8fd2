"""What people see while a run goes on and when it ends."""

from __future__ import annotations

import io
import threading

import msgspec
import pytest
from rich.console import Console
from tests.support.simulation_play import played
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.simulations.run.progress import Bar, Lines, Pace, Silence, progress_on
from hedgerow.simulations.run.records import RoundRecord
from hedgerow.simulations.run.words import bytes_of, duration, privacy_line, round_parts, summary_rows

RECORD = RoundRecord(
    round=3,
    drawn=10,
    counted=8,
    rejected={"non-finite": 1},
    loss=0.51234,
    scores={"accuracy": 0.91},
    epsilon=1.234,
    bytes_up=1_500_000,
    bytes_down=999,
    simulated_s=75.0,
    events=("1 late",),
)


def console(**options: object) -> Console:
    return Console(file=io.StringIO(), width=120, **options)  # type: ignore[arg-type]


def written(one: Console) -> str:
    assert isinstance(one.file, io.StringIO)
    return one.file.getvalue()


def test_a_round_says_score_loss_epsilon_devices_bytes_time_and_what_went_wrong() -> None:
    parts = round_parts(RECORD, 20, "accuracy")
    assert parts == [
        "round 3/20",
        "accuracy 0.91",
        "loss 0.5123",
        "ε 1.23",
        "8/10 devices",
        "1.5 MB up, 999 B down",
        "75.0 s simulated",
        "1 non-finite",
        "1 late",
    ]
    assert "ε ∞" in round_parts(msgspec.structs.replace(RECORD, epsilon=None), 20, "accuracy")
    late = msgspec.structs.replace(RECORD, staleness=1.25)
    assert "1.2 versions behind" in round_parts(late, 20, "accuracy")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_600, "1 MB"), (2.5e12, "2.5 TB")]
)
def test_bytes_have_three_figures(count: float, text: str) -> None:
    assert bytes_of(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12 ms"),
        (1, "1.0 s"),
        (99.94, "99.9 s"),
        (150, "2 min 30 s"),
        (7260, "2 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_pace_is_over_the_last_rounds() -> None:
    pace = Pace(100.0)
    assert pace.told(100.5, 10) == "2 rounds/s, 5.0 s left"
    slow = Pace(0.0)
    for end in range(1, 31):
        told = slow.told(3.0 * end, 4)
    assert told == "3 s/round, 12.0 s left"


def test_elsewhere_than_on_a_terminal_there_are_plain_lines_and_the_last_is_never_left_out() -> None:
    out = console(force_terminal=False)
    progress = progress_on(out, 3, "accuracy", quiet=False)
    assert isinstance(progress, Lines)
    with progress:
        for round in (1, 2, 3):
            progress.round(msgspec.structs.replace(RECORD, round=round))
        progress.note("ending [now]")
    lines = written(out).splitlines()
    assert lines[0].startswith("round 1/3  accuracy 0.91")
    assert lines[-2].startswith("round 3/3")
    assert lines[-1] == "ending [now]"
    assert len(lines) == 3  # round 2 came within a second of round 1


def test_a_bar_is_drawn_without_any_thread() -> None:
    out = console(force_terminal=True)
    before = threading.active_count()
    progress = progress_on(out, 3, "accuracy", quiet=False)
    assert isinstance(progress, Bar)
    with progress:
        progress.round(RECORD)
        assert threading.active_count() == before
    text = written(out)
    assert "█" * 24 in text and "round 3/3" in text and "accuracy 0.91" in text


def test_a_bar_shows_how_much_is_done() -> None:
    bar = Bar(console(force_terminal=True), 12, "accuracy")
    text = bar.text(RECORD, "2 rounds/s, 1.0 s left").plain
    assert text.startswith("█" * 6 + "░" * 18 + " round 3/12  2 rounds/s, 1.0 s left\n")


def test_quiet_is_quiet() -> None:
    out = console()
    progress = progress_on(out, 3, "accuracy", quiet=True)
    assert isinstance(progress, Silence)
    with progress:
        progress.round(RECORD)
        progress.note("words")
    assert written(out) == ""


def test_the_table_says_what_came_of_it() -> None:
    evaluation = {"per_device": True, "cohorts": "group"}
    result = played(tiny_setting(tiny_scenario(4, evaluation=evaluation), tests=2))
    rows = dict(summary_rows(result))
    assert rows["scenario"] == "tiny, 4 devices, 4 parameters"
    assert rows["engine"] == "in-process (kernel reference)"
    assert rows["rounds"] == "3 finished"
    assert rows["error"].endswith(f"untrained {result.initial_scores['error']:.4g}")
    assert rows["by cohort"].startswith("even ")
    assert rows["privacy"] == "none: ε is infinite"
    assert rows["bytes"] == "192 B up, 192 B down"
    assert rows["model"] == result.model_sha256[:16]


def test_privacy_is_told_with_its_claim_first() -> None:
    job = {
        "privacy": {"mode": "central-poisson", "noise_multiplier": 4.0, "delta": 1e-3},
        "cohort": {"rule": "poisson", "rate": 0.5},
    }
    line = privacy_line(played(tiny_setting(tiny_scenario(4, job=job))).privacy)
    assert line.startswith("simulated, no claim: ε ")
    assert "(central-poisson)" in line and "under replace" in line
