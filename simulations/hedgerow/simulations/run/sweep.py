"""A search over a scenario's sweep fields: trials as runs of their own in one folder, on one ledger.

Every trial is a release of the same devices' data, whether its model is kept or thrown away: all are charged, and the
report composes them (device by device, by PLD). Data, devices, faults, first model and batches are common to all trials; noise
and what else ε is computed from are each trial's own, keyed by its number (see ``draws``). The winner played again as a run
of its own, from ``best.toml``, has the scenario's noise, not the trial's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.files import write_atomically
from hedgerow.simulations.run.engines import EngineMaker, make_engine
from hedgerow.simulations.run.halving import combinations, ranked, rung_rounds, survivors
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.ledger import Ledger
from hedgerow.simulations.run.names import NamedScenario, with_overrides
from hedgerow.simulations.run.play import LEDGER_NAME, Plan, play_setting
from hedgerow.simulations.run.records import PrivacySummary, Result
from hedgerow.simulations.run.results import FILE_NAME as RESULT_NAME
from hedgerow.simulations.run.results import read_result
from hedgerow.simulations.run.setting import Setting, make_setting
from hedgerow.simulations.run.spending import Spending
from hedgerow.simulations.run.toml_text import changed, toml_of
from hedgerow.simulations.scenario.check import check_scenario
from hedgerow.simulations.scenario.spec import Scenario, SweepSpec

FILE_NAME = "sweep.json"
BEST_NAME = "best.toml"
SettingMaker = Callable[[NamedScenario], Setting]
_FIXED_WITH_PRIVACY = ("seed", "population.", "job.privacy.mode", "job.privacy.delta")


class Trial(msgspec.Struct, frozen=True):
    """One combination: how many rounds it got, its last score, why it ended if it fell apart, and what keyed its noise."""

    number: int
    values: dict[str, Any]
    rounds: int
    score: float | None
    epsilon: float | None = None
    failed: str | None = None
    noise_seed: int | None = None


class SweepResult(msgspec.Struct, frozen=True):
    """What a sweep found. ``privacy`` composes all trials. ``best`` is a trial's number, ``overrides`` are its values.

    ``state`` is ``interrupted`` when not all rungs were played.
    """

    name: str
    state: str
    metric: str
    higher_is_better: bool
    trials: tuple[Trial, ...]
    best: int | None
    overrides: dict[str, Any]
    privacy: PrivacySummary
    folder: str
    wall_s: float


class Options(NamedTuple):
    """How to search. ``told`` gets a line of news now and then. ``choices`` are for trials that have not begun."""

    folder: Path
    workers: int | None = None
    told: Callable[[str], None] = lambda _text: None
    interrupt: Interrupt = Interrupt()
    choices: Mapping[str, str] | None = None
    make: EngineMaker = make_engine
    settle: SettingMaker = make_setting


def run_sweep(named: NamedScenario, options: Options) -> SweepResult:
    """Search and return what was found; ``sweep.json`` and ``best.toml`` in the folder hold it too.

    Called again on the same folder it goes on where it was; ``check_trials`` should have been asked before. Raises ConfigError
    for a scenario without a sweep or with fields that cannot be swept, StorageError, EngineError; a trial that falls apart
    only fails itself.
    """
    spec = named.scenario.sweep
    if spec is None:
        raise ConfigError(
            f"{named.where}: sweep: --sweep needs a [sweep] table with its fields and their values"
        )
    check_fields(named.scenario, spec, named.where)
    trials = trials_of(named, spec)
    ledger = Ledger(options.folder / LEDGER_NAME)
    try:
        return _Search(named, spec, trials, options, ledger).search()
    finally:
        ledger.close()


def trials_of(named: NamedScenario, spec: SweepSpec) -> list[NamedScenario]:
    """Return every trial's scenario. Raises ConfigError for a value that its field cannot have."""
    return [
        named._replace(scenario=with_overrides(plain(named.scenario), list(values.items()), named.where))
        for values in combinations(spec, named.scenario.seed)
    ]


def check_trials(named: NamedScenario) -> None:
    """Raise ConfigError, with its values, for a trial that contradicts itself: before any is played, and charged."""
    spec = named.scenario.sweep
    if spec is None:
        return
    values = combinations(spec, named.scenario.seed)
    for number, trial in enumerate(trials_of(named, spec)):
        try:
            check_scenario(trial.scenario, named.where)
        except ConfigError as error:
            written = ", ".join(f"{path} = {value!r}" for path, value in values[number].items())
            raise ConfigError(f"{error} (trial {number} of the sweep: {written})") from error


def check_fields(scenario: Scenario, spec: SweepSpec, where: str) -> None:
    """Raise ConfigError for fields without values, or such that trials could not be composed."""
    if not spec.fields or not all(spec.fields.values()):
        raise ConfigError(f"{where}: sweep.fields: expected at least one field, each with a list of values")
    if scenario.job.privacy.mode == "none":
        return
    for path in spec.fields:
        if path.startswith(_FIXED_WITH_PRIVACY):
            raise ConfigError(
                f"{where}: sweep.fields: {path!r} cannot be swept with privacy: all trials must be of the same devices, mode "
                "and δ, or their ε could not be composed"
            )


def plain(scenario: Scenario) -> Scenario:
    """Return a scenario without its sweep."""
    return msgspec.structs.replace(scenario, sweep=None)


class _Search:
    """One sweep under way."""

    def __init__(
        self,
        named: NamedScenario,
        spec: SweepSpec,
        scenarios: list[NamedScenario],
        options: Options,
        ledger: Ledger,
    ) -> None:
        self._named = named
        self._spec = spec
        self._scenarios = scenarios
        self._options = options
        self._ledger = ledger
        self._values = combinations(spec, named.scenario.seed)
        self._trials: dict[int, Trial] = {}
        self._last: tuple[Setting, Result] | None = None
        self._began = time.monotonic()

    def search(self) -> SweepResult:
        left, rung, best = list(range(len(self._scenarios))), 0, None
        while not self._options.interrupt.asked:
            until = self._play_rung(left, rung)
            if self._options.interrupt.asked:
                break
            scores = {number: self._score_of(number) for number in left}
            left = survivors(scores, self._spec.keep_one_of, self._higher)
            best = ranked(scores, self._higher)[0]
            if all(self._trials[number].rounds >= self._rounds(number) for number in left) or until is None:
                break
            rung += 1
        return self._result(best)

    @property
    def _higher(self) -> bool:
        if self._last is None:
            raise ConfigError(f"{self._named.where}: sweep.fields: every trial fell apart")
        return self._last[1].higher_is_better

    def _rounds(self, number: int) -> int:
        return self._scenarios[number].scenario.job.rounds

    def _play_rung(self, left: list[int], rung: int) -> int | None:
        """Bring all trials that are left to the rung's round; return it, or None if none could be played."""
        until = None
        for number in left:
            if self._options.interrupt.asked:
                return until
            if number in self._trials and self._trials[number].failed is not None:
                continue
            until = rung_rounds(self._spec, rung, len(left), self._rounds(number))
            self._trials[number] = self._play(number, until)
            self._options.told(_line(self._trials[number]))
        return until

    def _play(self, number: int, until: int) -> Trial:
        folder, values = self._options.folder / "trials" / f"{number:04d}", self._values[number]
        setting = self._setting(self._scenarios[number])
        plan = Plan(
            workers=self._options.workers,
            folder=folder,
            resume=(folder / "checkpoint").exists(),
            choices=self._options.choices,
            began=time.monotonic(),
            until=until,
            trial=f"{number:04d}",
            ledger=self._ledger,
        )
        try:
            result = self._known(folder, until) or play_setting(
                setting, plan, self._options.interrupt, self._options.make
            )
        except ContentError as error:
            # A learning rate that is too large is an answer too.
            return Trial(number, values, 0, None, failed=str(error))
        self._last = (setting, result)
        return Trial(
            number, values, len(result.rounds), _score(result), _epsilon(result), noise_seed=result.noise_seed
        )

    def _known(self, folder: Path, until: int) -> Result | None:
        """Return the result that a trial had at round ``until`` if it is that far already (in a sweep that goes on).

        What it learned later is not looked at: a sweep that goes on decides as it did before, and charges no other trial.
        """
        if not (folder / RESULT_NAME).exists():
            return None
        found = read_result(folder)
        if len(found.rounds) < until:
            return None
        return msgspec.structs.replace(found, rounds=found.rounds[:until])

    def _setting(self, named: NamedScenario) -> Setting:
        """Return a trial's setting; examples are read once for all trials that share them."""
        if self._last is None or not _same_data(self._last[0].scenario, named.scenario):
            return self._options.settle(named)
        setting, before = self._last[0], self._last[0].scenario
        job = msgspec.structs.replace(named.scenario.job, parameters=before.job.parameters)
        return setting._replace(scenario=msgspec.structs.replace(named.scenario, job=job))

    def _score_of(self, number: int) -> float:
        score = self._trials[number].score
        return math.nan if score is None else score

    def _result(self, best: int | None) -> SweepResult:
        if self._last is None:
            raise ConfigError(f"{self._named.where}: sweep: every trial fell apart, or none was played")
        setting, last = self._last
        finished = best is not None and self._trials[best].rounds >= self._rounds(best)
        found = SweepResult(
            name=self._named.scenario.name,
            state="finished" if finished else "interrupted",
            metric=last.metric,
            higher_is_better=last.higher_is_better,
            trials=tuple(self._trials[number] for number in sorted(self._trials)),
            best=best,
            overrides={} if best is None else self._values[best],
            privacy=self._composed(setting, last.privacy),
            folder=str(self._options.folder),
            wall_s=time.monotonic() - self._began,
        )
        folder = self._options.folder
        write_atomically(folder / FILE_NAME, msgspec.json.format(msgspec.json.encode(found), indent=1))
        if best is not None:
            text = toml_of(changed(self._scenarios[best].scenario))
            write_atomically(folder / BEST_NAME, text.encode())
        return found

    def _composed(self, setting: Setting, one: PrivacySummary) -> PrivacySummary:
        """Return what all trials together cost, in the words of a single one."""
        if one.delta is None:
            return one
        spending = Spending(setting.population.devices)
        for entry in self._ledger:
            spending.add(entry.charges)
        return msgspec.structs.replace(
            one,
            epsilon=spending.epsilon(one.delta),
            epsilon_rdp=spending.epsilon(one.delta, "rdp"),
            epsilon_replace=spending.epsilon(one.delta, "pld", "replace"),
            notes=(f"All {len(self._trials)} trials composed, also those thrown away.", *one.notes),
        )


def _same_data(one: Scenario, other: Scenario) -> bool:
    """Return whether two scenarios have examples, devices and first model in common (the first one's defaults are filled in)."""

    def key(scenario: Scenario) -> tuple[Any, ...]:
        job = scenario.job
        return (
            scenario.population, scenario.device_class, scenario.seed, job.recipe, job.seed, job.privacy.mode,
            job.training.max_samples, job.strategy.name, job.strategy.options,
        )  # fmt: skip

    given, filled = other.job.parameters, one.job.parameters
    return key(one) == key(other) and all(filled.get(name) == value for name, value in given.items())


def _score(result: Result) -> float | None:
    if result.score is not None:
        return result.score
    return result.rounds[-1].device_mean if result.rounds else None


def _epsilon(result: Result) -> float | None:
    return result.rounds[-1].epsilon if result.rounds else None


def _line(trial: Trial) -> str:
    values = ", ".join(f"{path} {value}" for path, value in trial.values.items())
    if trial.failed is not None:
        return f"trial {trial.number}: {values}: fell apart: {trial.failed}"
    score = "no score" if trial.score is None else f"{trial.score:.4g}"
    return f"trial {trial.number}: {values}: {score} after {trial.rounds} rounds"
