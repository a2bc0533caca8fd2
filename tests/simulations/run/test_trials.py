"""A sweep's trials are looked at all together before the first is played: none fails, or runs on nonsense, half way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.simulation_scenarios import DIGITS, scenario

from hedgerow.shared.errors import ConfigError
from hedgerow.simulations.run.names import find_scenario
from hedgerow.simulations.run.sweep import check_trials

SCAFFOLD: dict[str, list[Any]] = {
    "job.strategy.name": ["fedavg", "scaffold"],
    "job.training.momentum": [0.0, 0.9],
}
LABELS = {"population__partition": {"kind": "label"}}
FIXED = {"job__cohort": {"rule": "fixed", "size": 3}}
CASES: dict[str, tuple[dict[str, list[Any]], dict[str, Any], str]] = {
    "a strategy of nobody's": ({"job.strategy.name": ["fedavg", "nope"]}, {}, r"strategy\.name: .*trial 1"),
    "two that do not go together": (SCAFFOLD, {}, r"training\.optimizer: .*trial 3.*scaffold.*momentum = 0\.9"),
    "more than there are": ({"job.cohort.size": [3, 30]}, FIXED, r"cohort\.size: .*trial 1.*size = 30"),
    "more labels than classes": (
        {"population.partition.labels_per_device": [2, 11]}, LABELS, r"labels_per_device: .*trial 1",
    ),
    "a model that cannot be": ({"job.parameters.filters": [4, -3]}, {}, r"job\.parameters: .*filters = -3"),
    "an option of no source": ({"population.options.x": [1]}, {}, r"unknown key x.*trial 0"),
    "a board too small": ({"device_class.0.memory_mib": [99.0, 0.001]}, {}, r"memory_mib: .*trial 1"),
    "a privacy without its figures": ({"job.privacy.mode": ["none", "example"]}, {}, r"privacy.*trial 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_trial_that_contradicts_itself_is_refused_with_its_values(case: str) -> None:
    fields, changes, why = CASES[case]
    named = find_scenario(scenario(sweep={"fields": fields}, **changes))

    with pytest.raises(ConfigError, match=why) as caught:
        check_trials(named)
    assert str(caught.value).startswith("scenario small: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"job.strategy.name": ["fedavg", "scaffold"], "job.training.momentum": [0.0]},
        {"job.cohort": [{"rule": "fixed", "size": 3}, {"rule": "all"}]},
        {"seed": [1, 2, 3], "job.training.batch_size": [8, 8]},
    ],
)
def test_trials_that_each_make_sense_are_let_through(fields: dict[str, list[Any]]) -> None:
    check_trials(find_scenario(scenario(sweep={"fields": fields})))


def test_values_that_only_go_together_need_not_make_sense_alone() -> None:
    """The base's momentum would not go with scaffold; each trial has its own."""
    fields = {"job.strategy.name": ["scaffold"], "job.training.momentum": [0.0]}
    named = find_scenario(scenario(sweep={"fields": fields}, job__training={"momentum": 0.9}))

    check_trials(named)


def test_the_command_says_so_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hedgerow.simulations.run.cli import main

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "s.toml"
    file.write_text(DIGITS + '\n[sweep.fields]\n"job.strategy.name" = ["fedavg", "nope"]\n')
    try:
        code = main([str(file), "--sweep", "--quiet"])
    except ConfigError as error:
        said, code = str(error), 1
    else:
        said = capsys.readouterr().err

    assert code != 0
    assert "job.strategy.name = 'nope'" in said
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]
