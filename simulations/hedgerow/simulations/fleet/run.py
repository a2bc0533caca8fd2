"""``hedgerow simulate FILE --engine fleet``: from a scenario to its result, over real processes of this machine.

The rounds are the server's own, not the simulation's; cohorts, noise and sampling come from the operating system, so that
a run does not repeat: its faults and its data do. Scores are the server's on the recipe's public set; scores on devices and
by cohort are of the last model alone (``scores``). ε is what ledgers say: the devices' own or the server's. Not on a fleet:
simulated time and energy (``simulated_s`` is measured), and going on with ``--resume``.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hedgerow.models.recipe import Recipe, find_recipe, recipe_hash
from hedgerow.server.app.home import ServerHome
from hedgerow.shared.errors import ConfigError, TransportError
from hedgerow.simulations.fleet.check import check_fleet_scenario, job_of
from hedgerow.simulations.fleet.clock import skewed_environment
from hedgerow.simulations.fleet.conduct import Conductor, slow_pids
from hedgerow.simulations.fleet.launch import launcher
from hedgerow.simulations.fleet.ledgers import Spent, read_spent
from hedgerow.simulations.fleet.outcome import (
    Left,
    device_records,
    privacy_of,
    read_left,
    round_record,
    round_records,
)
from hedgerow.simulations.fleet.proxy import Weather
from hedgerow.simulations.fleet.running import RunningFleet, device_name
from hedgerow.simulations.fleet.scores import score_fleet, wanted, with_scores
from hedgerow.simulations.fleet.slow import Slowdown
from hedgerow.simulations.fleet.storage import Stored, stored_in
from hedgerow.simulations.population.devices import draw_classes
from hedgerow.simulations.population.raw import RawPopulation, raw_population
from hedgerow.simulations.run.interrupt import Interrupt
from hedgerow.simulations.run.names import NamedScenario
from hedgerow.simulations.run.play import Plan
from hedgerow.simulations.run.records import Result
from hedgerow.simulations.run.results import model_sha256, scenario_sha256, versions, write_result
from hedgerow.simulations.run.world import World
from hedgerow.simulations.scenario.spec import Scenario


class Scene(NamedTuple):
    """What is played: the scenario with its recipe's parameters filled in, its devices and what they store at first; ``base`` is
    where its relative paths start.
    """

    scenario: Scenario
    recipe: Recipe
    world: World
    raw: RawPopulation
    first: Stored
    classes: tuple[str, ...]
    base: Path


class _Times(NamedTuple):
    started_at: str
    began_s: float
    submitted_s: float
    first_round_s: float


def run_fleet(named: NamedScenario, plan: Plan, interrupt: Interrupt) -> Result:
    """Return the result of a scenario on a fleet of its own; nothing of it runs afterwards.

    With a folder in ``plan`` the fleet's own stays below it as ``fleet`` (server, devices, logs), else it is removed.
    Raises ConfigError naming the field for what a fleet cannot do, TransportError if the job fails or a process ends.
    """
    if plan.resume:
        raise ConfigError(
            "--resume: engine 'fleet' keeps no checkpoints; its server resumes by itself while a run lasts"
        )
    scene = make_scene(named)
    with _terminable(), _folder(plan.folder) as folder:
        return _play(scene, folder, plan, interrupt)


def make_scene(named: NamedScenario) -> Scene:
    """Return what is to be played; reads the data. Raises ConfigError."""
    check_fleet_scenario(named.scenario, named.where)
    recipe = find_recipe(named.scenario.job.recipe)
    job = msgspec.structs.replace(named.scenario.job, parameters=recipe.check(named.scenario.job.parameters))
    scenario = msgspec.structs.replace(named.scenario, job=job)
    raw = raw_population(scenario, recipe, named.base)
    device_class = draw_classes(scenario.device_class, scenario.population.devices, scenario.seed)
    world = World(scenario, device_class)
    classes = tuple(scenario.device_class[int(kind)].name for kind in device_class)
    return Scene(scenario, recipe, world, raw, stored_in(raw, scenario, world, 1), classes, named.base)


def make_fleet(scene: Scene, folder: Path) -> RunningFleet:
    """Return the fleet of a scene, not yet started."""
    faults, seed = scene.scenario.faults, scene.scenario.seed
    skew = skewed_environment(folder, faults.clock_skew_s) if faults.clock_skew_s else {}
    return RunningFleet(
        folder,
        scene.first.devices,
        scene.raw.spec,
        profile=scene.raw.profile,
        weather=Weather(faults.loss, faults.delay_ms, seed),
        launch=launcher(scene.scenario, scene.world, skew),
    )


def _play(scene: Scene, folder: Path, plan: Plan, interrupt: Interrupt) -> Result:
    started_at, heard = datetime.now(UTC).isoformat(), _Heard(plan)
    with make_fleet(scene, folder) as fleet:
        fleet.wait_connected()
        job_id = fleet.submit(job_of(scene.scenario))
        submitted_s = time.monotonic()
        conductor = Conductor(fleet, job_id, scene.scenario, scene.world, scene.raw, heard.round)
        with _slow(fleet, scene):
            ended = conductor.follow(lambda: interrupt.asked)
        fleet.stop_server()
        left = read_left(ServerHome(fleet.server.home), job_id)
    spent = _spent(fleet, left)
    times = _Times(started_at, plan.began, submitted_s, heard.first_s)
    result = _result(scene, left, spent, conductor, times, ended, plan.folder)
    result = _with_scores(result, scene, left)
    if plan.folder is not None:
        write_result(result, left.model, plan.folder)
    if ended == "failed":
        raise TransportError(
            f"job {job_id} is {left.job.state} after {len(left.rounds)} rounds: {left.job.reason}"
        )
    return result


def _spent(fleet: RunningFleet, left: Left) -> Spent | None:
    """Return what devices paid by their own ledgers, where it is they who pay; their agents must have ended."""
    privacy = left.job.job.privacy
    if privacy.mode != "example" or privacy.delta is None:
        return None
    return read_spent([agent.home.ledger for agent in fleet.agents], left.job.job_id, privacy.delta)


def _with_scores(result: Result, scene: Scene, left: Left) -> Result:
    if not result.rounds or not wanted(scene.scenario):
        return result
    last = result.rounds[-1].round
    found = score_fleet(scene.scenario, scene.recipe, scene.base, left.model, last)
    rounds, devices = with_scores(result.rounds, result.device_records, found)
    return msgspec.structs.replace(result, rounds=rounds, device_records=devices)


class _Heard:
    """Passes rounds on as the server commits them."""

    def __init__(self, plan: Plan) -> None:
        self.first_s = 0.0
        self._progress = plan.progress
        self._elapsed_s = 0.0

    def round(self, one: dict[str, Any]) -> None:
        """Take note of a round as the fleet's API tells of it."""
        if not self.first_s:
            self.first_s = time.monotonic()
        self._elapsed_s += one["duration_s"]
        if self._progress is not None:
            self._progress(round_record(one, (), self._elapsed_s))


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Unwind on SIGTERM as on Ctrl-C, so that no process of the fleet stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _slow(fleet: RunningFleet, scene: Scene) -> Iterator[None]:
    if not scene.world.straggler.any():
        yield
        return
    slowdown = Slowdown(slow_pids(fleet, scene.world), scene.scenario.faults.straggler_factor)
    try:
        yield
    finally:
        slowdown.close()


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is None:
        made = Path(tempfile.mkdtemp(prefix="hedgerow-fleet-"))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    folder = given.resolve() / "fleet"
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"{folder}: holds a fleet already; give another --folder") from error
    yield folder


def _choices(scenario: Scenario) -> dict[str, str]:
    found = {"processes": f"1 server, {scenario.population.devices} agents"}
    if scenario.evaluation.per_device or scenario.evaluation.cohorts != "none":
        found["evaluation"] = (
            "on devices of the last model alone, by the simulation: devices report no scores"
        )
    return found


def _result(
    scene: Scene,
    left: Left,
    spent: Spent | None,
    conductor: Conductor,
    times: _Times,
    ended: str,
    folder: Path | None,
) -> Result:
    scenario, recipe, names = (
        scene.scenario,
        scene.recipe,
        [device_name(n) for n in range(scene.world.devices)],
    )
    counts = [len(one) for one in scene.first.devices]
    result = Result(
        name=scenario.name,
        engine="fleet",
        state="finished" if ended == "finished" else "interrupted",
        scenario=msgspec.to_builtins(scenario),
        scenario_sha256=scenario_sha256(scenario),
        seed=scenario.seed,
        recipe=scenario.job.recipe,
        recipe_hash=recipe_hash(recipe),
        n_parameters=int(left.model.size),
        devices=scene.world.devices,
        metric=recipe.metric,
        higher_is_better=recipe.higher_is_better,
        rounds=round_records(left, conductor.events),
        privacy=privacy_of(left, spent),
        model_sha256=model_sha256(left.model),
        initial_scores=left.job.initial_scores,
        device_records=device_records(left, names, scene.classes, counts, spent),
        choices=_choices(scenario),
        versions=versions(),
        started_at=times.started_at,
        start_s=times.submitted_s - times.began_s,
        first_round_s=times.first_round_s - times.began_s if times.first_round_s else 0.0,
        wall_s=sum(one.duration_s for one in left.rounds),
        folder="" if folder is None else str(folder),
    )
    # Plain values hold tuples where JSON has lists: what is returned is what can be read back.
    return msgspec.json.decode(msgspec.json.encode(result), type=Result)
