"""Two runs side by side."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.support.simulation_results import PRIVATE, result_of

from hedgerow.simulations.report.compare import Difference, compare, print_comparison
from hedgerow.simulations.run.records import Result


def changed(path: str, value: object, **changes: Any) -> Result:
    scenario = copy.deepcopy(result_of().scenario)
    *outer, last = path.split(".")
    table = scenario
    for key in outer:
        table = table.setdefault(key, {})
    table[last] = value
    return result_of(scenario=scenario, scenario_sha256="d" * 64, model_sha256="e" * 64, **changes)


def measure(first: Result, second: Result, name: str) -> tuple[float | None, float | None, float | None]:
    (row,) = (row for row in compare(first, second).measures if row.name == name)
    return row.first, row.second, row.difference


def test_a_run_beside_itself_differs_in_nothing() -> None:
    found = compare(result_of(), result_of())
    assert found.same_scenario and found.same_model and found.comparable
    assert found.differences == ()
    assert {row.difference for row in found.measures} == {0.0}


def test_what_differs_is_named_by_its_path() -> None:
    found = compare(result_of(), changed("job.training.learning_rate", 0.2))
    assert found.differences == (Difference("job.training.learning_rate", 0.1, 0.2),)
    assert not found.same_scenario
    assert found.comparable


def test_a_setting_that_one_run_lacks_is_none_there() -> None:
    (one,) = compare(result_of(), changed("job.packing", "int8")).differences
    assert one == Difference("job.packing", None, "int8")


def test_name_and_description_are_no_difference() -> None:
    assert compare(result_of(), changed("description", "else", name="other")).differences == ()


@pytest.mark.parametrize(
    ("path", "value"),
    [("population.source", "pump"), ("job.parameters", {"width": 8}), ("population.path", "x")],
)
def test_scores_of_other_data_or_another_network_are_not_comparable(path: str, value: object) -> None:
    assert not compare(result_of(), changed(path, value)).comparable


def test_figures_are_taken_second_less_first() -> None:
    first, second = result_of(rounds=2), result_of(rounds=3, wall_s=1.75)
    assert measure(first, second, "accuracy, last") == pytest.approx((0.2, 0.3, 0.1))
    assert measure(first, second, "bytes up") == (2e6, 3e6, 1e6)
    assert measure(first, second, "simulated s") == (60.0, 90.0, 30.0)
    assert measure(first, second, "wall s") == (0.75, 1.75, 1.0)


def test_a_figure_that_one_run_lacks_has_no_difference() -> None:
    assert measure(result_of(), result_of(privacy=PRIVATE), "ε by PLD") == (None, 2.5, None)


def test_a_score_by_another_metric_is_not_set_beside_it() -> None:
    assert measure(result_of(), result_of(metric="explained"), "accuracy, last")[1] is None


def test_the_tables_say_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(compare(result_of(), result_of()))
    assert "the models are the same" in capsys.readouterr().out
    print_comparison(compare(result_of(), changed("population.source", "pump")))
    said = capsys.readouterr().out
    assert "cannot be compared" in said
    assert "population.source" in said
