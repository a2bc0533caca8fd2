"""One run, four ways to look at it: JSON, lines, CSV and page hold the same figures, whatever the figures are."""

from __future__ import annotations

import copy
import csv
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.simulation_play import played
from tests.support.simulation_results import result_of, round_of, with_rounds
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.simulations.report.compare import compare
from hedgerow.simulations.report.page import MAX_ROWS, page_of
from hedgerow.simulations.report.series import byte_lines, epsilon_line, known, loss_line, score_lines
from hedgerow.simulations.report.tables import devices_csv, rounds_csv
from hedgerow.simulations.report.write import write_report
from hedgerow.simulations.run.records import DeviceRecord, Result, RoundRecord
from hedgerow.simulations.run.results import read_result

FIGURES = st.floats(-1e30, 1e30, allow_nan=False)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@st.composite
def records(draw: Any, number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        drawn=draw(st.integers(0, 10**7)),
        counted=draw(st.integers(0, 10**7)),
        rejected=draw(st.dictionaries(WORDS, st.integers(0, 99), max_size=2)),
        dropped=draw(st.integers(0, 99)),
        loss=draw(st.none() | FIGURES),
        update_norm_l2=draw(st.none() | FIGURES),
        scores=draw(st.dictionaries(st.just("accuracy") | WORDS, FIGURES, max_size=2)),
        device_mean=draw(st.none() | FIGURES),
        device_quantiles=draw(st.none() | st.tuples(FIGURES, FIGURES, FIGURES)),
        cohorts=draw(st.dictionaries(WORDS, FIGURES, max_size=2)),
        epsilon=draw(st.none() | FIGURES),
        bytes_up=draw(st.integers(0, 2**53)),
        simulated_s=draw(st.floats(0, 1e15)),
        energy_j=draw(st.floats(0, 1e15)),
        staleness=draw(st.none() | FIGURES),
        events=tuple(draw(st.lists(WORDS, max_size=2))),
    )


@st.composite
def runs(draw: Any) -> Result:
    count = draw(st.integers(0, 4))
    return with_rounds(*(draw(records(number)) for number in range(1, count + 1)))


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def cell(value: Any) -> str:
    return "" if value is None else str(value)


@settings(max_examples=40)
@given(runs())
def test_a_table_of_rounds_holds_every_figure_of_every_record(result: Result) -> None:
    rows = read_csv(rounds_csv(result))

    assert len(rows) == len(result.rounds)
    for row, record in zip(rows, result.rounds, strict=True):
        plain = msgspec.to_builtins(record)
        for name in ("scores", "rejected", "cohorts"):
            for key, value in plain.pop(name).items():
                assert row.pop(f"{name}.{key}") == cell(value)
        low, middle, high = plain.pop("device_quantiles") or (None, None, None)
        for key, value in (("device_p10", low), ("device_p50", middle), ("device_p90", high)):
            assert row.pop(key, "") == cell(value)
        assert row.pop("events") == "; ".join(plain.pop("events"))
        for key, value in plain.items():
            assert row.pop(key) == cell(value)
        # What is left belongs to other rounds alone.
        assert set(row.values()) <= {""}


@settings(max_examples=40)
@given(runs())
def test_a_result_comes_back_from_json_to_the_last_bit(result: Result) -> None:
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result


@given(st.lists(st.tuples(st.none() | FIGURES, st.none() | FIGURES, WORDS), max_size=5))
def test_a_table_of_devices_is_the_devices(given_devices: list[tuple[Any, Any, str]]) -> None:
    devices = tuple(
        DeviceRecord(n, "board", group, n, 1, 2, 3, 0.5, score, loss)
        for n, (score, loss, group) in enumerate(given_devices)
    )
    rows = read_csv(devices_csv(result_of(device_records=devices)))

    assert rows == [{k: cell(v) for k, v in msgspec.structs.asdict(one).items()} for one in devices]


class Rows(HTMLParser):
    """The cells of each row of the table of rounds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = self._cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._inside = dict(attributes).get("class") == "rounds"
        if self._inside and tag == "tr":
            self.rows.append([])
        self._cell = self._inside and tag in ("td", "th")
        if self._cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def test_the_page_shows_the_figures_of_the_records_rounded() -> None:
    result = with_rounds(
        round_of(1, loss=None, scores={}, events=("3 late", "<i>odd</i>")),
        round_of(2, epsilon=1.23456, loss=0.000123456, simulated_s=123456.7),
    )
    head, first, second = Rows(page_of(result)).rows

    assert head == [
        "round",
        "drawn",
        "counted",
        "accuracy",
        "loss",
        "ε",
        "MB up",
        "simulated s",
        "wall s",
        "events",
    ]
    assert first == ["1", "4", "3", "", "", "", "1", "30", "0.25", "3 late; <i>odd</i>"]
    assert second == ["2", "4", "3", "0.2", "0.0001235", "1.235", "1", "1.235e+05", "0.25", ""]


@pytest.mark.parametrize("rounds", [1, MAX_ROWS - 1, MAX_ROWS, MAX_ROWS + 1, 3 * MAX_ROWS])
def test_the_page_shows_the_ends_of_long_runs_and_the_table_all(rounds: int) -> None:
    # Plots are slow and say nothing here.
    result = with_rounds(*(RoundRecord(n, 1, 1) for n in range(1, rounds + 1)), device_records=())
    shown = [int(row[0]) for row in Rows(page_of(result)).rows[1:]]
    expected = list(range(1, rounds + 1))
    if rounds > MAX_ROWS:
        expected = expected[: MAX_ROWS // 2] + expected[-MAX_ROWS // 2 :]

    assert shown == expected
    assert [int(row["round"]) for row in read_csv(rounds_csv(result))] == list(range(1, rounds + 1))


def test_a_real_run_says_the_same_in_every_file(tmp_path: Path) -> None:
    evaluation = {"every": 2, "per_device": True, "cohorts": "group"}
    population = {"devices": 4, "test_share": 0.5}
    scenario = tiny_scenario(4, job={"rounds": 3}, evaluation=evaluation, population=population)
    result = played(tiny_setting(scenario, tests=2), tmp_path)
    write_report(result, tmp_path)
    lines = (tmp_path / "rounds.jsonl").read_bytes().splitlines()
    rows = read_csv((tmp_path / "rounds.csv").read_text())
    devices = read_csv((tmp_path / "devices.csv").read_text())
    page = Rows((tmp_path / "report.html").read_text()).rows[1:]

    assert read_result(tmp_path) == result
    assert tuple(msgspec.json.decode(line, type=RoundRecord) for line in lines) == result.rounds
    assert [float(row["loss"]) for row in rows] == [record.loss for record in result.rounds]
    assert [row["scores.error"] for row in rows] == [cell(r.scores.get("error")) for r in result.rounds]
    assert [row[4] for row in page] == [f"{record.loss:.4g}" for record in result.rounds]
    assert [float(row["bytes_up"]) for row in devices] == [d.bytes_up for d in result.device_records]
    assert sum(d.bytes_up for d in result.device_records) == sum(r.bytes_up for r in result.rounds)
    assert sum(int(row["bytes_down"]) for row in rows) == sum(d.bytes_down for d in result.device_records)
    assert [float(row["score"] or "nan") for row in devices] == pytest.approx([float("nan")] * 4, nan_ok=True)


@settings(max_examples=25)
@given(runs())
def test_curves_are_the_columns_of_the_table(result: Result) -> None:
    rows = read_csv(rounds_csv(result))

    def column(name: str) -> list[tuple[float, float]]:
        return [(float(row["round"]), float(row[name])) for row in rows if row.get(name)]

    for line, name in ((loss_line(result), "loss"), (epsilon_line(result), "epsilon")):
        assert list(zip(line.x, line.y, strict=True)) == column(name)
    central = [line for line in score_lines(result) if line.label == "held-out set"]
    assert [p for line in central for p in zip(line.x, line.y, strict=True)] == column("scores.accuracy")
    staleness = known(result, "s", lambda record: record.staleness)
    assert list(zip(staleness.x, staleness.y, strict=True)) == column("staleness")
    if rows:
        assert byte_lines(result)[0].y[-1] * 1e6 == pytest.approx(sum(float(row["bytes_up"]) for row in rows))


def of_source(source: str, seed: int, job_seed: int = 1, **changes: Any) -> Result:
    scenario = copy.deepcopy(result_of().scenario)
    scenario["population"]["source"] = source
    scenario["job"]["seed"] = job_seed
    return result_of(scenario=scenario, seed=seed, **changes)


@pytest.mark.parametrize("source", ["digits", "pump", "synthetic-images", "synthetic-vectors"])
def test_sources_with_a_public_set_are_judged_alike_whatever_the_seed(source: str) -> None:
    assert compare(of_source(source, 1), of_source(source, 2)).comparable


@pytest.mark.parametrize("source", ["csv", "idx", "images", "npz", "sklearn"])
def test_examples_held_out_by_another_seed_are_others(source: str) -> None:
    unlike: dict[str, Any] = {"initial_scores": {"accuracy": 0.06}}

    assert compare(of_source(source, 1), of_source(source, 1)).comparable
    assert not compare(of_source(source, 1), of_source(source, 2, **unlike)).comparable
    # Where the files bring a test set, the same untrained model scores the same on it; else nothing tells.
    assert compare(of_source(source, 1), of_source(source, 2)).comparable
    assert not compare(of_source(source, 1), of_source(source, 2, job_seed=2)).comparable
    assert not compare(
        of_source(source, 1, initial_scores={}), of_source(source, 2, initial_scores={})
    ).comparable


def test_quantiles_of_another_metric_are_not_set_beside_ours() -> None:
    quantiles = {"device_quantiles": (0.1, 0.2, 0.3)}
    first = with_rounds(round_of(1, **quantiles))
    second = with_rounds(round_of(1, **quantiles), metric="error")
    rows = {row.name: row for row in compare(first, second).measures}

    assert (rows["devices, median"].first, rows["devices, median"].second) == (0.2, None)
    assert rows["devices, median"].difference is None
    assert {row.name: row for row in compare(first, first).measures}["devices, median"].second == 0.2


def test_windows_by_another_profile_are_not_comparable() -> None:
    scenario = copy.deepcopy(result_of().scenario)
    scenario["population"]["profile"] = "other.toml"

    assert not compare(result_of(), result_of(scenario=scenario)).comparable
