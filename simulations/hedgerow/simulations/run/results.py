"""A run as its result: what ``results.json`` holds."""

from __future__ import annotations

import hashlib
import io
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from hedgerow.models.recipe import recipe_hash
from hedgerow.server.rounds.models import model_bytes
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.files import write_atomically
from hedgerow.shared.packing import Vector
from hedgerow.shared.unreadable import UNREADABLE
from hedgerow.simulations.run.judge import score_devices, scores_by_device
from hedgerow.simulations.run.records import DeviceRecord, Result
from hedgerow.simulations.run.run import Run
from hedgerow.simulations.run.state import State
from hedgerow.simulations.scenario.spec import Scenario

FILE_NAME = "results.json"
MODEL_NAME = "model.npy"


def scenario_sha256(scenario: Scenario) -> str:
    """Return a hash of what decides a run: everything but its sweep and its words."""
    same = msgspec.structs.replace(scenario, sweep=None, description="")
    return hashlib.sha256(msgspec.json.encode(same, order="sorted")).hexdigest()


def run_sha256(scenario: Scenario, trial: str) -> str:
    """Return a hash of what decides a run: its scenario, and in a sweep which trial it is, for the noise is that one's."""
    found = scenario_sha256(scenario)
    return hashlib.sha256(f"{found} trial {trial}".encode()).hexdigest() if trial else found


def model_sha256(model: Vector) -> str:
    """Return the hash of a model's float32 values, little endian."""
    return hashlib.sha256(model_bytes(model)).hexdigest()


def result_of(
    run: Run,
    state: State,
    ended: Literal["finished", "interrupted"],
    choices: dict[str, str],
    started_at: str,
    start_s: float,
    first_round_s: float,
    folder: Path | None,
    with_devices: bool = True,
) -> Result:
    """Return the result of a run as far as it came. ``with_devices`` asks the engine for their last scores."""
    setting, scenario = run.setting, run.setting.scenario
    result = Result(
        name=scenario.name,
        engine=run.engine.name,
        state=ended,
        scenario=msgspec.to_builtins(scenario),
        scenario_sha256=scenario_sha256(scenario),
        seed=scenario.seed,
        recipe=scenario.job.recipe,
        recipe_hash=recipe_hash(setting.recipe),
        n_parameters=setting.n,
        devices=setting.population.devices,
        metric=setting.recipe.metric,
        higher_is_better=setting.recipe.higher_is_better,
        rounds=tuple(state.records),
        privacy=run.mechanism.summary(run.spending),
        model_sha256=model_sha256(state.model),
        initial_scores=state.initial_scores,
        device_records=device_records(run, state, with_devices),
        choices=choices,
        versions=versions(),
        started_at=started_at,
        start_s=start_s,
        first_round_s=first_round_s,
        wall_s=state.wall_s,
        folder="" if folder is None else str(folder),
        trial=run.trial,
        noise_seed=None if run.mechanism.mode == "none" else run.noise_seed,
    )
    # Plain values hold tuples where JSON has lists: what is returned is what can be read back.
    return msgspec.json.decode(msgspec.json.encode(result), type=Result)


def device_records(run: Run, state: State, scored: bool) -> tuple[DeviceRecord, ...]:
    """Return one record for each device; their last scores too where the scenario evaluates on devices."""
    population, scenario, totals = run.setting.population, run.setting.scenario, state.totals
    found = score_devices(run.engine, population, state.model, max(1, state.round)) if scored else None
    scores = scores_by_device(found)
    counts = np.diff(population.at(max(1, state.round)).offsets)
    return tuple(
        DeviceRecord(
            device=device,
            device_class=scenario.device_class[int(population.device_class[device])].name,
            group=population.group_name(device),
            n_samples=int(counts[device]),
            rounds=int(totals.rounds[device]),
            bytes_up=int(totals.bytes_up[device]),
            bytes_down=int(totals.bytes_down[device]),
            train_s=float(totals.train_s[device]),
            **scores.get(device, {}),
        )
        for device in range(population.devices)
    )


def write_result(result: Result, model: Any, folder: Path) -> None:
    """Write ``results.json`` and the model beside it. Raises StorageError naming the path."""
    write_atomically(folder / FILE_NAME, msgspec.json.format(msgspec.json.encode(result), indent=1))
    whole = io.BytesIO()
    np.save(whole, model, allow_pickle=False)
    write_atomically(folder / MODEL_NAME, whole.getvalue())


def read_result(path: Path) -> Result:
    """Return a result from ``results.json`` or the folder that holds it. Raises ConfigError naming the path."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        return msgspec.json.decode(file.read_bytes(), type=Result)
    except OSError as error:
        raise ConfigError(f"{file}: no result there: {error.strerror}") from error
    except UNREADABLE as error:
        raise ConfigError(f"{file}: not the result of a simulation: {error}") from error


def versions() -> dict[str, str]:
    """Return what a run's figures depend on."""
    found = {"python": platform.python_version()}
    for name in ("hedgerow", "torch", "numpy", "flwr", "opacus", "dp-accounting"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
