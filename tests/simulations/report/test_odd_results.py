"""Runs that went wrong, or whose names were chosen by somebody unkind, still have their report."""

from __future__ import annotations

import copy
import csv
import html
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.simulation_results import PRIVATE, result_of, round_of, with_rounds

from hedgerow.shared.errors import StorageError
from hedgerow.simulations.report import series
from hedgerow.simulations.report.compare import Comparison, Measure, compare, print_comparison
from hedgerow.simulations.report.page import MAX_ROWS, page_of
from hedgerow.simulations.report.plots import COLOURS, figure_of, lines_on, plots_of, svg_of
from hedgerow.simulations.report.series import Line
from hedgerow.simulations.report.tables import as_csv, rounds_csv
from hedgerow.simulations.report.write import write_report
from hedgerow.simulations.run.records import DeviceRecord, Result

UNKIND = [
    "[red]x",
    "[/red]",
    "[/]",
    "runs/[/v2]",
    "[link=http://x]y",
    "a\\[b",
    "$\\frac$",
    "<script>",
    "&amp;",
    "{x}",
]


def device(number: int, score: float | None) -> DeviceRecord:
    return DeviceRecord(number, "board", "all", 10, 1, 1, 1, 0.5, score=score)


def with_path(path: str) -> Result:
    scenario = copy.deepcopy(result_of().scenario)
    scenario["population"]["path"] = path
    return result_of(scenario=scenario, folder=path, metric="accuracy")


@pytest.mark.parametrize("name", UNKIND)
def test_names_are_printed_as_they_are_and_are_no_markup(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    print_comparison(compare(with_path(name), with_path(f"{name}2")))

    said = capsys.readouterr().out
    assert f"A  {name}\n" in said and f"B  {name}2\n" in said
    row = next(line for line in said.splitlines() if line.startswith("population.path"))
    assert row.split("  ", 1)[1].split("  ")[0].strip() in (name, f"{name}2") or f"{name} " in row


def test_a_metric_in_brackets_is_printed_too(capsys: pytest.CaptureFixture[str]) -> None:
    first = result_of(metric="[/m]")

    print_comparison(compare(first, first))

    assert "[/m], last" not in capsys.readouterr().out, "no run has a score by it"
    scored = with_rounds(round_of(1, scores={"[/m]": 0.5}), metric="[/m]")
    print_comparison(compare(scored, scored))
    assert "[/m], last" in capsys.readouterr().out


def test_cohorts_of_any_name_can_be_drawn_and_their_names_stay_text() -> None:
    names = [*UNKIND, "$x$", "100 %"]
    result = with_rounds(round_of(1, cohorts=dict.fromkeys(names, 0.5)), device_records=())
    (plot,) = (plot for plot in plots_of(result) if plot.name == "cohorts")

    drawn, page = svg_of(plot), page_of(result)

    for name in names:
        assert html.escape(name, quote=False) in drawn, "the legend has it as it is"
        assert html.escape(name) in page
    assert "<script" not in page


class Words(HTMLParser):
    """Collects the text and the tags of a page; complains of tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "br", "use"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (self.open[-3:], tag)
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Words:
    reader = Words()
    reader.feed(page[page.index("<html") :].replace("</use>", ""))
    reader.close()
    return reader


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


@settings(max_examples=8, deadline=None)
@given(name=words, event=words, note=words, reason=words)
def test_whatever_a_run_is_called_the_page_says_it_and_obeys_none_of_it(
    name: str, event: str, note: str, reason: str
) -> None:
    private = msgspec.structs.replace(PRIVATE, notes=(f"note:{note}",), sampling=f"by:{reason}")
    result = msgspec.structs.replace(
        with_rounds(
            round_of(1, loss=None, scores={}, events=(f"event:{event}",), bytes_up=0), privacy=private
        ),
        name=f"name:{name}",
        device_records=(),
    )

    found = read(page_of(result))

    said = "".join(found.text)
    for wanted in (f"name:{name}", f"event:{event}", f"note:{note}", f"by:{reason}"):
        assert wanted in said
    assert "script" not in found.tags
    assert found.open == []


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_run_that_fell_apart_still_has_its_report(tmp_path: Path, bad: float) -> None:
    rounds = (round_of(1), round_of(2, scores={"accuracy": bad}, loss=bad, update_norm_l2=bad))
    result = with_rounds(*rounds, device_records=(device(0, bad), device(1, 0.5), device(2, None)))

    written = write_report(result, tmp_path)

    assert {path.name for path in written} >= {"score.png", "loss.png", "devices.png", "report.html"}
    assert "last score of 1 devices, from 0.5 to 0.5" in (tmp_path / "report.html").read_text()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rounds.csv").read_text())))
    assert rows[1]["loss"] == str(bad)
    assert series.device_scores(result) == [0.5]


def test_a_run_of_no_round_has_a_page_that_says_so(tmp_path: Path) -> None:
    result = with_rounds(device_records=(), state="interrupted")

    write_report(result, tmp_path)

    text = "".join(read((tmp_path / "report.html").read_text()).text)
    assert "0 interrupted" in text
    assert (tmp_path / "rounds.csv").read_text() == (tmp_path / "devices.csv").read_text() == "\n"
    assert list((tmp_path / "plots").iterdir()) == []


@pytest.mark.parametrize("count", [MAX_ROWS, MAX_ROWS + 1])
def test_the_middle_is_left_out_only_where_there_is_one_too_many(count: int) -> None:
    page = page_of(with_rounds(*(round_of(n) for n in range(1, count + 1))))

    numbers = [int(n) for n in re.findall(r"<tr><td>(\d+)</td>", page)]
    half = MAX_ROWS // 2
    assert numbers == [*range(1, half + 1), *range(count - half + 1, count + 1)]
    assert ("left out" in page) == (count > MAX_ROWS)


def test_privacy_is_told_loudly_or_as_none() -> None:
    open_page, private_page = page_of(result_of()), page_of(result_of(privacy=PRIVATE))

    assert "none: ε is infinite" in open_page and 'class="loud"' not in open_page
    text = "".join(read(private_page).text)
    for piece in ("ε by PLD2.5", "ε by RDP2.75", "ε under replace-one4", "δ1e-05", "noise multiplier1.5"):
        assert piece in text


def test_where_plots_should_go_a_file_stands_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("mine")

    with pytest.raises(StorageError, match="plots: cannot be made: File exists"):
        write_report(result_of(), tmp_path)
    assert (tmp_path / "plots").read_text() == "mine"
    assert (tmp_path / "rounds.csv").exists(), "the tables are written by then"


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "b,c", 'd"']),
            st.none() | st.integers() | st.text(st.characters(codec="utf-8", exclude_characters="\r\0")),
        ),
        max_size=6,
    )
)
def test_any_table_comes_back_from_its_csv(rows: list[dict[str, Any]]) -> None:
    read_back = list(csv.DictReader(io.StringIO(as_csv(rows), newline="")))

    names = list(dict.fromkeys(name for row in rows for name in row))
    expected = [{name: "" if row.get(name) is None else str(row[name]) for name in names} for row in rows]
    if len(names) > 1:
        assert read_back == expected
    elif names:
        # csv's reader passes over a line that holds nothing
        assert read_back == [row for row in expected if row[names[0]] != ""] or read_back == expected


def test_the_header_names_each_column_once_in_the_order_they_came() -> None:
    assert as_csv([{"b": 1}, {"a": 2, "b": 3}]) == "b,a\n1,\n3,2\n"
    header = rounds_csv(result_of()).splitlines()[0].split(",")
    assert len(header) == len(set(header))
    assert header[0] == "round"


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(0, 1), st.integers(0, 10**9), st.floats(0, 1e5), st.none() | st.floats(0, 9)
        ),
        max_size=12,
    )
)
def test_curves_hold_what_is_known_at_the_round_it_belongs_to(
    given_rounds: list[tuple[float | None, int, float, float | None]],
) -> None:
    clock, rounds = 0.0, []
    for n, (score, up, took, epsilon) in enumerate(given_rounds, 1):
        clock += took
        scores = {} if score is None else {"accuracy": score}
        rounds.append(
            round_of(n, scores=scores, bytes_up=up, bytes_down=2 * up, simulated_s=clock, epsilon=epsilon)
        )
    result = with_rounds(*rounds)

    scored = [(n, row) for n, row in enumerate(given_rounds, 1) if row[0] is not None]
    lines = series.score_lines(result)
    assert [(line.x, line.y) for line in lines] == (
        [(tuple(float(n) for n, _ in scored), tuple(row[0] for _, row in scored))] if scored else []
    )
    sent, received = series.byte_lines(result)
    total = 0
    for n, row in enumerate(given_rounds):
        total += row[1]
        assert sent.y[n] == pytest.approx(total / 1e6)
        assert received.y[n] == pytest.approx(2 * total / 1e6)
    spent = [(float(n), row[3]) for n, row in enumerate(given_rounds, 1) if row[3] is not None]
    line = series.epsilon_line(result)
    assert list(zip(line.x, line.y, strict=True)) == spent
    over, unit = series.score_over_time(result)
    size = {"seconds": 1, "minutes": 60, "hours": 3600}[unit]
    assert [x * size for x in over.x] == pytest.approx([rounds[n - 1].simulated_s for n, _ in scored])


def test_a_figure_shows_a_legend_for_two_curves_and_none_for_one() -> None:
    plot = plots_of(result_of())[0]
    one, two = Line("a", (1.0,), (2.0,)), Line("b", (1.0, 2.0), (2.0, 3.0), (1.0, 2.0), (3.0, 4.0))

    single = figure_of(plot._replace(draw=lines_on([one], "x", "y"))).axes[0]
    double = figure_of(plot._replace(draw=lines_on([one, two], "x", "y"))).axes[0]

    assert single.get_legend() is None
    legend = double.get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert (double.get_xlabel(), double.get_ylabel()) == ("x", "y")
    assert [line.get_color() for line in double.get_lines()] == list(COLOURS[:2])
    assert len(double.collections) == 1, "a band where there is one"
    assert np.asarray(double.get_lines()[1].get_ydata()).tolist() == [2.0, 3.0]


def test_more_curves_than_colours_begin_again() -> None:
    plot = plots_of(result_of())[0]
    lines = [Line(str(n), (1.0,), (float(n),)) for n in range(len(COLOURS) + 1)]

    drawn = figure_of(plot._replace(draw=lines_on(lines, "x", "y"))).axes[0].get_lines()

    assert drawn[-1].get_color() == drawn[0].get_color()


def test_what_a_plot_says_are_its_first_and_last_figures() -> None:
    about = {plot.name: plot.about for plot in plots_of(result_of())}

    assert about["score"] == "accuracy by round: 0.05 at first, 0.3 at last."
    assert about["loss"] == "mean training loss by round: 2 at first, 0.6667 at last."
    assert about["bytes"] == "megabytes of all devices since the begin: 3 up, 6 down."
    assert about["time"] == "accuracy over simulated time: 0.1 at first, 0.3 at last after 90 seconds."
    assert about["devices"] == "last score of 3 devices, from 0.1 to 0.3."


@settings(max_examples=60)
@given(
    first=st.recursive(
        st.integers(0, 2), lambda leaf: st.dictionaries(st.sampled_from("xyz"), leaf, max_size=3)
    ),
    second=st.recursive(
        st.integers(0, 2), lambda leaf: st.dictionaries(st.sampled_from("xyz"), leaf, max_size=3)
    ),
)
def test_differences_told_turn_one_scenario_into_the_other(first: Any, second: Any) -> None:
    found = compare(result_of(scenario={"sweep": first}), result_of(scenario={"sweep": second})).differences

    patched = {"sweep": copy.deepcopy(first)}
    for one in found:
        *outer, last = one.path.split(".")
        table = patched
        for key in outer:
            table = table[key]
        assert table.get(last) == one.first
        if one.second is None:
            del table[last]
        else:
            table[last] = one.second
    assert patched == {"sweep": second}
    assert bool(found) == (first != second)


def test_a_comparison_is_json_that_comes_back() -> None:
    found = compare(result_of(), result_of(rounds=2, privacy=PRIVATE))

    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


def test_engine_choices_and_versions_are_differences_of_their_own() -> None:
    other = result_of(engine="flower", choices={"kernel": "stacked"}, versions={"python": "4"})

    paths = [one.path for one in compare(result_of(), other).differences]

    assert paths == ["choices.kernel", "engine", "versions.python"]


def test_a_run_without_rounds_has_no_times_to_compare() -> None:
    found = {row.name: row for row in compare(with_rounds(), result_of()).measures}

    assert found["simulated s"] == Measure("simulated s", None, 90.0, None)
    assert found["rounds"].difference == 3
    assert found["bytes up"] == Measure("bytes up", 0.0, 3e6, 3e6)
    assert "devices, median" not in found


def test_device_quantiles_are_of_the_last_round_that_has_them() -> None:
    first = with_rounds(round_of(1, device_quantiles=(0.1, 0.2, 0.3)), round_of(2))
    second = with_rounds(
        round_of(1, device_quantiles=(0.0, 0.0, 0.0)), round_of(2, device_quantiles=(0.2, 0.4, 0.6))
    )

    found = {
        row.name: row.difference for row in compare(first, second).measures if row.name.startswith("devices")
    }

    assert found == pytest.approx({"devices, 10 %": 0.1, "devices, median": 0.2, "devices, 90 %": 0.3})


def test_a_result_without_a_folder_goes_by_its_name() -> None:
    found = compare(result_of(folder=""), result_of())

    assert (found.first, found.second) == ("by-hand", "runs/by-hand")
