"""A run from its scenario to its result: opens what is needed, plays rounds, keeps what was reached, closes everything."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, cast

from hedgerow.shared.errors import ConfigError, HedgerowError, IntegrityError, StorageError, UnsupportedError
from hedgerow.simulations.run import checkpoint as saving
from hedgerow.simulations.run.engines import EngineMaker, make_engine
from hedgerow.simulations.run.fedbuff import play_release
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.ledger import Ledger
from hedgerow.simulations.run.names import NamedScenario
from hedgerow.simulations.run.records import Result, RoundRecord
from hedgerow.simulations.run.results import FILE_NAME, result_of, run_sha256, write_result
from hedgerow.simulations.run.rounds_file import RoundsFile
from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.setting import Setting, make_setting
from hedgerow.simulations.run.state import State
from hedgerow.simulations.run.synchronous import play_round

FLEET_MODULE = "hedgerow.simulations.fleet.run"
CHECKPOINT_INTERVAL_S = 1.0
LEDGER_NAME = "ledger.jsonl"
_SAME_EPSILON = 1e-6
"""Relative: the same charges give the same figure, but for the last bits of another machine's."""
_KEEPING = frozenset({"scaffold", "fedper"})
"""Strategies whose devices keep something from round to round: they can go back one round, and no further."""


class Plan(NamedTuple):
    """How to run. ``until`` stops after that round though the job has more (a sweep's trial); ``began`` is monotonic."""

    workers: int | None = None
    folder: Path | None = None
    resume: bool = False
    progress: Callable[[RoundRecord], None] | None = None
    choices: Mapping[str, str] | None = None
    began: float = 0.0
    until: int | None = None
    trial: str = ""
    ledger: Ledger | None = None


FleetRunner = Callable[[NamedScenario, Plan, Interrupt], Result]


def play(named: NamedScenario, plan: Plan, interrupt: Interrupt) -> Result:
    """Return the result of a scenario. Raises as ``api.run``."""
    check_folder(plan)
    if named.scenario.engine == "fleet":
        return fleet_runner()(named, plan, interrupt)
    return play_setting(make_setting(named), plan, interrupt)


def play_setting(
    setting: Setting, plan: Plan, interrupt: Interrupt, make: EngineMaker = make_engine
) -> Result:
    """Return the result of a setting. Raises as ``api.run``."""
    scenario = setting.scenario
    saved = _saved(plan, setting)
    choices = plan.choices if saved is None else saved.choices
    own = plan.ledger is None
    ledger = plan.ledger or Ledger(None if plan.folder is None else plan.folder / LEDGER_NAME)
    try:
        engine = make(scenario.engine, setting, plan.workers, choices, plan.folder)
        try:
            run = Run.of(setting, engine, ledger, plan.until, plan.trial)
            return _Playing(run, plan, interrupt, saved).to_its_end()
        finally:
            engine.close()
    finally:
        if own:
            ledger.close()


def check_folder(plan: Plan) -> None:
    """Raise ConfigError for a folder that holds another run already."""
    folder = plan.folder
    if folder is None or plan.resume:
        return
    if (folder / saving.FILE_NAME).exists() or (folder / FILE_NAME).exists():
        raise ConfigError(
            f"{folder}: holds a run already; go on with it by --resume, or give another --folder"
        )


def _saved(plan: Plan, setting: Setting) -> saving.Checkpoint | None:
    if not plan.resume:
        return None
    if plan.folder is None:
        raise ConfigError("--resume: expected a --folder that holds the run to go on with")
    scenario = setting.scenario
    return saving.read_checkpoint(plan.folder, run_sha256(scenario, plan.trial), scenario.engine)


def fleet_runner() -> FleetRunner:
    """Return what runs a scenario on a real server and real agents: their loop is the server's own, not this one.

    Raises UnsupportedError where this installation has none.
    """
    try:
        module = importlib.import_module(FLEET_MODULE)
    except ModuleNotFoundError as error:
        if error.name is None or not FLEET_MODULE.startswith(error.name):
            raise
        raise UnsupportedError(
            f"engine 'fleet' is not in this installation ({error.name} is missing)"
        ) from error
    return cast("FleetRunner", module.run_fleet)


class _Playing:
    """One run being played."""

    def __init__(self, run: Run, plan: Plan, interrupt: Interrupt, saved: saving.Checkpoint | None) -> None:
        self._run = run
        self._plan = plan
        self._interrupt = interrupt
        self._choices = run.engine.open()
        self._state = self._first_state(saved)
        self._started_at = datetime.now(UTC).isoformat() if saved is None else saved.started_at
        self._start_s = time.monotonic() - plan.began
        self._first_round_s = 0.0
        self._saved_at = time.monotonic()
        self._file = None if plan.folder is None else RoundsFile(plan.folder, self._state.records)
        self._keeping = run.setting.scenario.job.strategy.name in _KEEPING

    def to_its_end(self) -> Result:
        try:
            if self._state.round == 0:
                self._save()
            while self._state.round < self._run.until and not self._interrupt.asked:
                self._one_round()
        except (HedgerowError, KeyboardInterrupt):
            # What was reached is kept; that the disk is full too must not hide why the run ended.
            with suppress(StorageError):
                self._result("interrupted", with_devices=False)
            raise
        finally:
            if self._file is not None:
                self._file.close()
        return self._result("finished" if self._state.round >= self._run.rounds else "interrupted")

    def _one_round(self) -> None:
        asynchronous = self._run.setting.scenario.job.strategy.name == "fedbuff"
        record = (play_release if asynchronous else play_round)(self._run, self._state)
        if self._first_round_s == 0.0:
            self._first_round_s = time.monotonic() - self._plan.began
        if self._file is not None:
            with self._not_kept():
                self._file.add(record)
        ending = self._state.round >= self._run.until or self._interrupt.asked
        if self._keeping or ending or time.monotonic() - self._saved_at >= CHECKPOINT_INTERVAL_S:
            self._save()
        if self._plan.progress is not None:
            self._plan.progress(record)

    @contextmanager
    def _not_kept(self) -> Iterator[None]:
        """Say of what the disk refuses what that means for the run."""
        try:
            yield
        except StorageError as error:
            raise StorageError(
                f"{error}; round {self._state.round} is not kept, earlier ones are: make room, then go on with --resume"
            ) from error

    def _save(self) -> None:
        """Make ledger and checkpoint durable, in this order."""
        if self._plan.folder is None:
            return
        scenario = self._run.setting.scenario
        self._run.ledger.flush()
        with self._not_kept():
            saving.write_checkpoint(
                self._plan.folder,
                self._state,
                run_sha256(scenario, self._run.trial),
                scenario.engine,
                self._choices,
                self._started_at,
            )
        self._saved_at = time.monotonic()

    def _result(self, ended: Literal["finished", "interrupted"], with_devices: bool = True) -> Result:
        folder = self._plan.folder
        result = result_of(
            self._run,
            self._state,
            ended,
            self._choices,
            self._started_at,
            self._start_s,
            self._first_round_s,
            folder,
            with_devices,
        )
        if folder is not None:
            write_result(result, self._state.model, folder)
        return result

    def _first_state(self, saved: saving.Checkpoint | None) -> State:
        if saved is None:
            return self._run.begin()
        state = saving.state_of(saved, self._run.setting.population.devices)
        state.model = self._run.engine.hold(state.model)
        for entry in self._run.ledger:
            if entry.trial == self._run.trial and entry.round <= state.round:
                self._run.spending.add(entry.charges)
        self._check_paid(state)
        return state

    def _check_paid(self, state: State) -> None:
        """Raise IntegrityError unless the ledger holds what the rounds played cost: ε must not come out smaller."""
        told = state.records[-1].epsilon if state.records else None
        if told is None:
            return
        try:
            found = self._run.mechanism.epsilon(self._run.spending)
        except (OverflowError, ValueError):
            found = None  # figures that no accountant takes were written by nobody here
        if found is None or abs(found - told) > _SAME_EPSILON * max(1.0, told):
            where = LEDGER_NAME if self._plan.folder is None else self._plan.folder / LEDGER_NAME
            raise IntegrityError(
                f"{where}: does not hold what the {state.round} rounds played cost: ε {told:.6g} by the checkpoint, "
                f"{'none' if found is None else f'{found:.6g}'} by the ledger; start again with another --folder"
            )
