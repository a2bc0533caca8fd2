"""The ledger of whole runs: paid before it is released, once whatever happens, and summed as dp-accounting sums it.

What was charged is read from the file as plain JSON, and composed without the code that a run uses.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from tests.support.simulation_engine import InProcessEngine
from tests.support.simulation_play import played
from tests.support.simulation_setting import tiny_scenario, tiny_setting

from hedgerow.shared.errors import IntegrityError, StorageError
from hedgerow.simulations.engine.errors import EngineError
from hedgerow.simulations.engine.protocol import Answer, Batch
from hedgerow.simulations.run import play as playing
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.names import NamedScenario
from hedgerow.simulations.run.play import LEDGER_NAME, Plan, play_setting
from hedgerow.simulations.run.setting import Setting
from hedgerow.simulations.run.sweep import Options, SweepResult, run_sweep

DELTA = 1e-3
EXAMPLE = {"mode": "example", "epsilon": 4.0, "delta": DELTA}
CENTRAL = {
    "privacy": {"mode": "central-poisson", "noise_multiplier": 2.0, "delta": DELTA},
    "cohort": {"rule": "poisson", "rate": 0.5},
}
FEDBUFF = {"name": "fedbuff", "options": {"buffer_size": 2, "concurrency": 3}}
JOBS: dict[str, dict[str, Any]] = {
    "none": {},
    "example": {"privacy": EXAMPLE},
    "example-fedbuff": {"privacy": EXAMPLE, "strategy": FEDBUFF},
    "central": CENTRAL,
}
Lines = list[dict[str, Any]]


def lines(folder: Path) -> Lines:
    """Return the ledger of a folder, line by line."""
    text = (folder / LEDGER_NAME).read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def setting_of(mode: str, rounds: int = 4, counts: tuple[int, ...] = (3, 3, 3, 3), **changes: Any) -> Setting:
    scenario = tiny_scenario(len(counts), job={"rounds": rounds, **JOBS[mode]}, **changes)
    return tiny_setting(scenario, counts=counts)


def steps_of(entries: Lines, device: int) -> Counter[tuple[float, float]]:
    """Return how often ``device`` paid for each mechanism: (rate, noise) to steps or rounds."""
    found: Counter[tuple[float, float]] = Counter()
    for charge in (charge for entry in entries for charge in entry["charges"]):
        event = charge["event"]
        if charge["devices"] is None or device in charge["devices"]:
            count = event["steps"] if event["type"] == "dp-sgd" else event["rounds"]
            found[(event["sampling_rate"], event["noise_multiplier"])] += count
    return found


def rdp_epsilon(paid: Counter[tuple[float, float]]) -> float:
    """Return ε of Poisson-sampled Gaussians by dp-accounting's own RDP accountant, at its own orders."""
    accountant = RdpAccountant()
    for (rate, noise), count in paid.items():
        event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
        accountant.compose(dp_accounting.SelfComposedDpEvent(event, count))
    return float(accountant.get_epsilon(DELTA))


class Watched(InProcessEngine):
    """Notes, each time that it is asked to train, what the ledger on disk holds by then."""

    folder = Path()

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.paid: list[set[int]] = []

    def train(self, batch: Batch) -> Answer:
        self.paid.append({entry["round"] for entry in lines(self.folder)})
        return super().train(batch)


def watched(folder: Path) -> tuple[list[Watched], Callable[..., InProcessEngine]]:
    made: list[Watched] = []

    def make(name: str, setting: Setting, *_: Any) -> InProcessEngine:
        made.append(Watched(setting))
        made[-1].folder = folder
        return made[-1]

    return made, make


@pytest.mark.parametrize("mode", ["example-fedbuff", "central"])
def test_a_round_is_on_disk_before_anybody_trains_in_it(mode: str, tmp_path: Path) -> None:
    engines, make = watched(tmp_path)
    play_setting(setting_of(mode), Plan(folder=tmp_path), Interrupt(), make)
    assert len(engines[0].paid) >= 3
    for round, paid in enumerate(engines[0].paid, start=1):
        assert paid == set(range(1, round + 1))


@pytest.mark.parametrize(
    ("mode", "broken"), [("none", 1), ("none", 3), ("example", 3), ("example-fedbuff", 3), ("central", 1)]
)
def test_a_round_that_was_paid_and_never_released_is_paid_once(
    mode: str, broken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "CHECKPOINT_INTERVAL_S", 0.0)
    setting = setting_of(mode)
    whole = played(setting, tmp_path / "whole")
    calls = 0

    class Breaking(InProcessEngine):
        def train(self, batch: Batch) -> Answer:
            nonlocal calls
            calls += 1
            if calls == broken:
                raise EngineError("a worker died")
            return super().train(batch)

    cut = tmp_path / "cut"
    with pytest.raises(EngineError):
        play_setting(setting, Plan(folder=cut), Interrupt(), lambda _name, made, *_: Breaking(made))
    rounds = [entry["round"] for entry in lines(cut)]
    assert rounds == ([1] if mode == "none" else list(range(1, broken + 1)))

    rest = played(setting, cut, resume=True)
    assert lines(cut) == lines(tmp_path / "whole")
    assert (rest.model_sha256, rest.privacy) == (whole.model_sha256, whole.privacy)
    assert [r.epsilon for r in rest.rounds] == [r.epsilon for r in whole.rounds]


@pytest.mark.parametrize("cuts", [(1,), (2, 3), (1, 1, 1), (3, 4)])
def test_however_often_the_power_fails_the_ledger_comes_out_the_same(
    cuts: tuple[int, ...], tmp_path: Path
) -> None:
    """Nothing but the first checkpoint survives a cut here: the rounds before it are played and charged again."""
    setting = setting_of("central")
    whole = played(setting, tmp_path / "whole")

    class PowerCutError(Exception):
        pass

    for number, cut in enumerate(cuts):

        def fail(record: Any, at: int = cut) -> None:
            if record.round == at:
                raise PowerCutError

        with pytest.raises(PowerCutError):
            played(setting, tmp_path / "cut", resume=number > 0, progress=fail)
        assert len(lines(tmp_path / "cut")) == max(cuts[: number + 1])
    rest = played(setting, tmp_path / "cut", resume=True)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert rest.privacy == whole.privacy


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_a_ledger_that_lost_its_end_in_a_crash_is_written_again(keep: int, tmp_path: Path) -> None:
    """The ledger is older than the model only if a disk lies; the rounds that are played again are charged again."""
    setting = setting_of("central")

    class PowerCutError(Exception):
        pass

    def fail(record: Any) -> None:
        if record.round == 3:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        played(setting, tmp_path, progress=fail)
    path = tmp_path / LEDGER_NAME
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:keep]) + whole[keep][:10])
    played(setting, tmp_path, resume=True)
    assert [entry["round"] for entry in lines(tmp_path)] == [1, 2, 3, 4]


def test_without_privacy_one_release_is_noted_and_no_more(tmp_path: Path) -> None:
    played(setting_of("none"), tmp_path)
    played(setting_of("none"), tmp_path, resume=True)
    (entry,) = lines(tmp_path)
    assert (entry["round"], entry["trial"]) == (1, "")
    assert entry["charges"] == [{"event": {"type": "unprotected", "what": "model updates"}, "devices": None}]


@pytest.mark.parametrize("strategy", [{"name": "fedavg"}, FEDBUFF])
def test_who_drew_noise_is_who_pays(strategy: dict[str, Any], tmp_path: Path) -> None:
    """Away, too small or unwilling devices pay nothing; those that fail after they trained pay all the same."""
    counts = (3, 3, 4, 4, 200)  # the last one's delta would be too large: it declines
    scenario = tiny_scenario(
        5,
        job={"rounds": 5, "privacy": EXAMPLE, "strategy": strategy},
        availability={"kind": "random", "rate": 0.7},
        faults={"dropout": 0.3},
    )
    result = played(tiny_setting(scenario, counts=counts), tmp_path)
    entries = lines(tmp_path)
    times = Counter(
        device for entry in entries for charge in entry["charges"] for device in charge["devices"]
    )
    assert times == Counter({one.device: one.rounds for one in result.device_records if one.rounds})
    assert 4 not in times
    assert sum(times.values()) > sum(record.counted for record in result.rounds)


@pytest.mark.parametrize("mode", ["example-fedbuff", "central"])
def test_the_figures_of_a_run_are_what_another_accountant_makes_of_its_ledger(
    mode: str, tmp_path: Path
) -> None:
    setting = setting_of(mode, counts=(3, 3, 6, 6), faults={"dropout": 0.2})
    result = played(setting, tmp_path)
    entries = lines(tmp_path)
    worst = max(rdp_epsilon(steps_of(entries, device)) for device in range(4))
    assert result.privacy.epsilon_rdp == pytest.approx(worst, rel=0.02)  # two sets of orders
    assert result.privacy.epsilon is not None
    assert 0 < result.privacy.epsilon <= result.privacy.epsilon_rdp  # type: ignore[operator]
    told = [record.epsilon for record in result.rounds]
    assert all(earlier <= later for earlier, later in itertools.pairwise(told))  # type: ignore[operator]
    assert told[-1] == pytest.approx(result.privacy.epsilon, abs=2e-3)


def test_a_run_does_not_go_on_where_a_round_was_charged_to_another(tmp_path: Path) -> None:
    setting = setting_of("central")
    played(setting, tmp_path / "a", until=2)
    other = {**lines(tmp_path / "a")[0], "round": 3}
    other["charges"][0]["event"]["noise_multiplier"] = 3.0
    with (tmp_path / "a" / LEDGER_NAME).open("a") as file:
        file.write(json.dumps(other) + "\n")
    with pytest.raises(IntegrityError, match=r"ledger\.jsonl: round 3 was charged differently"):
        played(setting, tmp_path / "a", resume=True)


def test_when_the_ledger_cannot_be_written_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hedgerow.simulations.run.ledger import Ledger

    write = Ledger._write

    def full(self: Ledger, line: bytes) -> None:
        if json.loads(line)["round"] == 2:
            raise StorageError("ledger.jsonl: cannot be written: No space left on device")
        write(self, line)

    monkeypatch.setattr(Ledger, "_write", full)
    engines, make = watched(tmp_path)
    with pytest.raises(StorageError, match="No space left"):
        play_setting(setting_of("central"), Plan(folder=tmp_path), Interrupt(), make)
    assert len(engines[0].paid) == 1
    assert engines[0].closed == 1


# Sweeps: all trials of one search are charged to the same devices


def sweep(folder: Path, job: dict[str, Any], fields: dict[str, list[Any]], **options: Any) -> SweepResult:
    scenario = tiny_scenario(
        4,
        job={"rounds": 3, **job},
        sweep={"fields": fields, "first_rounds": 1, "keep_one_of": 2, "trials": 8},
    )
    return run_sweep(
        NamedScenario(scenario, "tiny.toml", folder),
        Options(
            folder,
            make=InProcessEngine.make,
            settle=lambda named: tiny_setting(named.scenario, counts=(3, 3, 3, 3)),
            **options,
        ),
    )


SWEEPS: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "noise in mode central": (CENTRAL, {"job.privacy.noise_multiplier": [2.0, 4.0]}),
}


@pytest.mark.parametrize("case", SWEEPS)
def test_a_sweeps_figure_is_what_another_accountant_makes_of_all_its_trials(
    case: str, tmp_path: Path
) -> None:
    found = sweep(tmp_path, *SWEEPS[case])
    entries = lines(tmp_path)
    per_trial = Counter(entry["trial"] for entry in entries)
    assert per_trial == Counter({f"{trial.number:04d}": trial.rounds for trial in found.trials})
    worst = max(rdp_epsilon(steps_of(entries, device)) for device in range(4))
    assert found.privacy.epsilon_rdp == pytest.approx(worst, rel=0.02)
    assert found.privacy.epsilon is not None
    assert found.privacy.epsilon > max(trial.epsilon or 0.0 for trial in found.trials)
    assert found.privacy.epsilon <= found.privacy.epsilon_rdp  # type: ignore[operator]


def test_a_trial_that_fell_apart_is_charged_like_any_other(tmp_path: Path) -> None:
    # Often enough that somebody is drawn in the first round of each trial.
    often = {**CENTRAL, "cohort": {"rule": "poisson", "rate": 0.9}}
    found = sweep(tmp_path, often, {"job.training.learning_rate": [0.05, 1e38]})
    failed = [trial for trial in found.trials if trial.failed]
    assert [trial.number for trial in failed] == [1]
    entries = lines(tmp_path)
    assert {entry["trial"] for entry in entries} == {"0000", "0001"}
    worst = max(rdp_epsilon(steps_of(entries, device)) for device in range(4))
    assert found.privacy.epsilon_rdp == pytest.approx(worst, rel=0.02)
    without = [entry for entry in entries if entry["trial"] == "0000"]
    assert worst > rdp_epsilon(steps_of(without, 0))


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_sweep_stopped_anywhere_comes_to_the_same_ledger(after: int, tmp_path: Path) -> None:
    job, fields = CENTRAL, {"job.training.learning_rate": [0.01, 0.05]}
    whole = sweep(tmp_path / "whole", job, fields)
    interrupt, news = Interrupt(), []

    def stop(text: str) -> None:
        news.append(text)
        interrupt.asked = len(news) == after

    cut = sweep(tmp_path / "cut", job, fields, told=stop, interrupt=interrupt)
    assert (cut.state == "interrupted") == (after < 3)
    rest = sweep(tmp_path / "cut", job, fields)
    assert sorted(lines(tmp_path / "cut"), key=str) == sorted(lines(tmp_path / "whole"), key=str)
    assert rest.privacy.epsilon == pytest.approx(whole.privacy.epsilon)
    assert (rest.best, rest.overrides) == (whole.best, whole.overrides)


def test_noise_is_drawn_anew_each_round() -> None:
    from hedgerow.simulations.run.mode_central import CentralPoisson

    mechanism = CentralPoisson(setting_of("central").scenario.job, 4, seed=3)
    draws = np.array([mechanism.release(r, np.zeros(4000), 0.0, b"").total for r in (1, 2, 3)])
    correlations = np.corrcoef(draws)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)
