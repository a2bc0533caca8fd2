"""A ledger that lost or gained something while nobody looked: a run does not go on to tell a smaller ε than was spent."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.simulation_play import played
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import IntegrityError
from hedgerow.shared.privacy.events import CentralRounds, DpSgdSteps
from hedgerow.simulations.run.ledger import Charge
from hedgerow.simulations.run.setting import Setting
from hedgerow.simulations.run.spending import Spending

MODES: dict[str, dict[str, Any]] = {
    "central": {
        "privacy": {"mode": "central-poisson", "noise_multiplier": 1.0, "delta": 1e-5},
        "cohort": {"rule": "poisson", "rate": 0.5},
    },
    "example": {"privacy": {"mode": "example", "epsilon": 8.0, "delta": 1e-3}},
}
Lines = list[dict[str, Any]]


def setting_of(mode: str) -> Setting:
    return tiny_setting(tiny_scenario(4, job={**MODES.get(mode, {}), "rounds": 3}), counts=(3, 3, 3, 3))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a finished run of a mode, played once for all tests."""
    folders: dict[str, Path] = {}

    def of(mode: str) -> Path:
        if mode not in folders:
            folders[mode] = tmp_path_factory.mktemp(mode) / "run"
            played(setting_of(mode), folders[mode])
        return folders[mode]

    return of


def resumed(folder: Path, mode: str, tmp_path: Path, edit: Callable[[Lines], Lines]) -> Any:
    """Return a copy of a run, gone on with after somebody edited its ledger."""
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "ledger.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in edit(copy.deepcopy(lines))))
    return played(setting_of(mode), tmp_path / "copy", resume=True)


def without_charges(lines: Lines) -> Lines:
    lines[1]["charges"] = []
    return lines


def of_nobody(lines: Lines) -> Lines:
    lines[1]["charges"][0]["devices"] = []
    return lines


def with_more_noise(lines: Lines) -> Lines:
    for line in lines:
        for charge in line["charges"]:
            charge["event"]["noise_multiplier"] *= 2
    return lines


def without_the_first(lines: Lines) -> Lines:
    return lines[1:]


def without_the_last(lines: Lines) -> Lines:
    return lines[:-1]


def of_another_trial(lines: Lines) -> Lines:
    return [{**line, "trial": "0001"} for line in lines]


def moved_behind(lines: Lines) -> Lines:
    lines[0]["round"] = 99
    return lines


LESS = [
    without_charges, of_nobody, with_more_noise, without_the_first, without_the_last, of_another_trial, moved_behind,
    lambda _lines: [],
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("edit", LESS)
def test_a_ledger_that_holds_less_than_was_spent_is_refused(
    finished: Callable[[str], Path], tmp_path: Path, mode: str, edit: Callable[[Lines], Lines]
) -> None:
    with pytest.raises(
        IntegrityError, match=r"copy/ledger\.jsonl: does not hold what the 3 rounds played cost"
    ):
        resumed(finished(mode), mode, tmp_path, edit)


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines,
        lambda lines: lines[::-1],
        lambda lines: lines + lines,
        lambda lines: [*lines, {**lines[0], "trial": "0001"}],
        lambda lines: [*lines, {**lines[0], "round": 4}],
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_what_changes_nothing_of_the_rounds_played_is_let_through(
    finished: Callable[[str], Path], tmp_path: Path, mode: str, edit: Callable[[Lines], Lines]
) -> None:
    before = json.loads((finished(mode) / "results.json").read_text())
    found = resumed(finished(mode), mode, tmp_path, edit)

    assert found.privacy.epsilon == before["privacy"]["epsilon"]
    assert found.model_sha256 == before["model_sha256"]


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("rounds", 0, "line 1 is damaged"),
        ("rounds", -5, "line 1 is damaged"),
        ("rounds", 10_001, "a charge of 10001 times; a run has at most 10000"),
        ("rounds", 2**62, "a charge of 4611686018427387904 times"),
        ("rounds", 2**70, "a charge of 1180591620717411303424 times"),
        ("rounds", 0.5, "line 1 is damaged"),
        ("noise_multiplier", 0, "line 1 is damaged"),
        ("noise_multiplier", -1, "line 1 is damaged"),
        ("noise_multiplier", 1e300, "does not hold"),
        ("sampling_rate", 0, "line 1 is damaged"),
        ("sampling_rate", 1.5, "line 1 is damaged"),
        ("sampling_rate", 1e-9, "does not hold"),
        ("type", "dp-sgd", "line 1 is damaged"),
        ("type", "magic", "line 1 is damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the accountant's own, of figures that nobody means
def test_an_event_that_nobody_makes_is_refused(
    finished: Callable[[str], Path], tmp_path: Path, key: str, value: Any, why: str
) -> None:
    def edit(lines: Lines) -> Lines:
        lines[0]["charges"][0]["event"][key] = value
        return lines

    with pytest.raises(IntegrityError, match=why):
        resumed(finished("central"), "central", tmp_path, edit)


@pytest.mark.parametrize("device", [-1, 4, 10**9, 2**62])
@pytest.mark.parametrize("mode", MODES)
def test_a_device_that_there_is_not_is_refused(
    finished: Callable[[str], Path], tmp_path: Path, mode: str, device: int
) -> None:
    def edit(lines: Lines) -> Lines:
        lines[0]["charges"][0]["devices"] = [0, device]
        return lines

    with pytest.raises(IntegrityError, match="there are 4"):
        resumed(finished(mode), mode, tmp_path, edit)


def test_without_privacy_there_is_nothing_to_hold() -> None:
    """ε is infinite whatever the ledger says; the run goes on."""
    spending = Spending(3)
    spending.add([Charge(CentralRounds(0.5, 1.0, 2), (0, 2)), Charge(DpSgdSteps(0.1, 1.0, 5))])
    with pytest.raises(IntegrityError, match="a charge of device 3: there are 3"):
        spending.add([Charge(CentralRounds(0.5, 1.0, 2), (3,))])

    with pytest.raises(IntegrityError, match="a charge of 2199023255552 times"):
        spending.add([Charge(DpSgdSteps(0.1, 1.0, 2**41))])
    # What was refused was not counted.
    assert spending.heaviest() == [(CentralRounds(0.5, 1.0, 2), DpSgdSteps(0.1, 1.0, 5))]
    assert spending.epsilon(1e-5) > Spending(3).epsilon(1e-5) == 0.0


def test_a_run_without_privacy_goes_on_whatever_its_ledger_says(
    finished: Callable[[str], Path], tmp_path: Path
) -> None:
    found = resumed(finished("none"), "none", tmp_path, lambda _lines: [])

    assert found.privacy.epsilon is None
    assert len(found.rounds) == 3
