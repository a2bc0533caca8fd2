"""CSV, plots and the page: complete, self-contained, the same again for the same run."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.support.simulation_results import PRIVATE, result_of, round_of, with_rounds

from hedgerow.shared.errors import StorageError
from hedgerow.simulations.report.page import MAX_ROWS, page_of
from hedgerow.simulations.report.plots import plots_of, png_of, svg_of
from hedgerow.simulations.report.tables import devices_csv, rounds_csv
from hedgerow.simulations.report.write import write_report


def names(result) -> list[str]:  # type: ignore[no-untyped-def]
    return [plot.name for plot in plots_of(result)]


def test_rounds_csv_has_a_row_a_round_and_a_column_a_figure() -> None:
    rows = list(csv.DictReader(io.StringIO(rounds_csv(result_of()))))
    assert [row["round"] for row in rows] == ["1", "2", "3"]
    assert float(rows[1]["scores.accuracy"]) == pytest.approx(0.2)
    assert rows[0]["rejected.non-finite"] == "1"
    assert rows[0]["epsilon"] == ""


def test_columns_that_begin_later_are_empty_before() -> None:
    rounds = (round_of(1, scores={}), round_of(2, device_quantiles=(0.1, 0.2, 0.3)))
    rows = list(csv.DictReader(io.StringIO(rounds_csv(with_rounds(*rounds)))))
    assert rows[0]["scores.accuracy"] == ""
    assert (rows[0]["device_p50"], rows[1]["device_p50"]) == ("", "0.2")


def test_words_with_commas_and_quotes_survive_the_csv() -> None:
    rounds = (round_of(1, events=('a, "b"', "c")),)
    (row,) = csv.DictReader(io.StringIO(rounds_csv(with_rounds(*rounds))))
    assert row["events"] == 'a, "b"; c'


def test_devices_csv_leaves_unknown_scores_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(devices_csv(result_of()))))
    assert [row["score"] for row in rows] == ["", "0.1", "0.2", "0.3"]


def test_a_run_shows_the_plots_it_has_something_for() -> None:
    assert names(result_of()) == ["score", "loss", "bytes", "time", "devices"]
    rounds = (round_of(1, epsilon=0.5, loss=None, cohorts={"a": 0.5}),)
    private = with_rounds(*rounds, privacy=PRIVATE, device_records=())
    assert names(private) == ["score", "cohorts", "epsilon", "bytes", "time"]
    assert names(with_rounds()) == ["devices"]


def test_a_plot_is_a_png_of_the_same_bytes_every_time() -> None:
    plot = plots_of(result_of())[0]
    data = png_of(plot)
    assert data.startswith(b"\x89PNG")
    assert png_of(plots_of(result_of())[0]) == data


def test_an_inline_plot_is_the_same_every_time_and_its_words_stay_words() -> None:
    plot = plots_of(result_of())[0]
    text = svg_of(plot)
    assert text.startswith("<svg")
    assert ">accuracy</text>" in text
    assert svg_of(plot) == text


def test_epsilon_of_a_simulation_is_shown_as_no_claim() -> None:
    result = with_rounds(round_of(1, epsilon=0.5), privacy=PRIVATE)
    (plot,) = (plot for plot in plots_of(result) if plot.name == "epsilon")
    assert "simulated, no claim" in plot.title
    assert 'class="loud">simulated, no claim<' in page_of(result)


class Loads(HTMLParser):
    """Collects what a page would load from elsewhere, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.loaded.append(value)


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = page_of(result_of())
    reader = Loads()
    reader.feed(page)
    assert reader.loaded == []
    assert "script" not in reader.tags
    assert "svg" in reader.tags
    assert not re.search(r"url\((?!#)", page)


def test_what_a_scenario_says_cannot_become_markup() -> None:
    page = page_of(result_of(name="<b>bold</b>", privacy=PRIVATE))
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    assert "four &lt;devices&gt;" in page
    assert "a coin &lt;each&gt;" in page


def test_a_long_run_shows_its_ends_and_says_what_is_left_out() -> None:
    rounds = tuple(round_of(n) for n in range(1, MAX_ROWS + 12))
    page = page_of(with_rounds(*rounds))
    assert "11 rounds in the middle are left out" in page
    assert page.count("<tr><td>") == MAX_ROWS


def test_a_report_is_written_whole_and_again(tmp_path: Path) -> None:
    first = write_report(result_of(), tmp_path)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in first)
    assert found == [
        "devices.csv", "plots/bytes.png", "plots/devices.png", "plots/loss.png", "plots/score.png", "plots/time.png",
        "report.html", "rounds.csv",
    ]  # fmt: skip
    before = {path: path.read_bytes() for path in first}
    assert {path: path.read_bytes() for path in write_report(result_of(), tmp_path)} == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "rounds.csv").mkdir()
    with pytest.raises(StorageError, match=r"rounds\.csv: cannot be written"):
        write_report(result_of(), tmp_path)
