"""``hedgerow bench skab``: federated anomaly detection on labelled recordings in SKAB's format.

Each file is one device. By the benchmark's protocol a device fits on its file's first 400 rows (training, scaling,
threshold) and the rest is scored: a row by the window that ends there, as a device sees it, so that nothing looks
ahead. Labels are compared with at the very end and choose nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.inference.runtime import open_runtime
from hedgerow.edge_agent.trainer.local import initial_model, pooled, train_locally
from hedgerow.models.export.onnx_export import export_onnx
from hedgerow.models.export.vector import load_vector
from hedgerow.models.quantise.onnxruntime import quantise_onnx
from hedgerow.models.recipe import Recipe, TrainingSet, find_recipe
from hedgerow.shared.bundle import Precision
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job, PrivacySpec
from hedgerow.shared.profile import DeviceProfile, read_profile
from hedgerow.shared.scoring import Scorer, StatisticalBaseline
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.bench.federation import federate
from hedgerow.simulations.bench.row_metrics import RowCounts, count_rows
from hedgerow.simulations.bench.skab_files import Recording, find_files, read_recording
from hedgerow.simulations.configs import configs_folder

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

FIT_ROWS: Final = 400
_LARGEST_EPSILON: Final = 100.0
"""As a job's."""


@dataclass(frozen=True)
class Device:
    """One file as a device: windows ``(n, rows, c)`` that end at each row, and how many of them are for fitting."""

    recording: Recording
    windows: Floats
    fit: int

    def judge(self, alarm: Flags) -> RowCounts:
        """Return the counts over the rows after the fit, given an alarm per window after it."""
        return count_rows(alarm, self.recording.anomaly[-len(alarm) :])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return F1, FAR and MAR over all files, float and int8, and beside them what is simpler than federated training.

    ``args``: ``folders``, ``job``, ``profile`` (paths), ``epsilon`` (None: without the private run), ``fit_rows``.
    """
    profile = read_profile(args.profile)
    job = read_toml(args.job, Job)
    recipe = find_recipe(job.recipe)
    job = msgspec.structs.replace(job, parameters=recipe.check(job.parameters))
    length = recipe.input_spec(job.parameters).shape[0]
    recordings = [read_recording(path, profile, args.fit_rows + 1) for path in find_files(args.folders)]
    devices = [_device(recording, length, args.fit_rows) for recording in recordings]
    start = time.monotonic()
    result: dict[str, Any] = {
        "bench": "skab",
        "files": len(devices),
        "rows_scored": sum(len(device.windows) - device.fit for device in devices),
        "cells_held": sum(recording.held for recording in recordings),
        "protocol": f"fit on the first {args.fit_rows} rows of each file, score the rest, causal windows of {length}",
        "everything_is_anomaly": _total(devices, lambda _, n: np.ones(n, np.bool_)),
        "statistical_baseline": _baseline(devices, profile),
    }
    result |= _without_privacy(recipe, job, devices, profile)
    if args.epsilon is not None:
        result["private"] = _with_privacy(recipe, job, devices, profile, args.epsilon)
    result["seconds"] = round(time.monotonic() - start, 1)
    return result


def main(argv: Sequence[str]) -> int:
    """Run the benchmark from the command line; ``--json`` prints one object on the last line."""
    options = _parser()
    args = options.parse_args(list(argv))
    if args.epsilon is not None and not 0 < args.epsilon <= _LARGEST_EPSILON:
        options.error(f"--epsilon: expected above 0, at most {_LARGEST_EPSILON:g}, got {args.epsilon:g}")
    result = run(args)
    sys.stdout.write(json.dumps(result) + "\n" if args.json else _table(result))
    return 0


def _device(recording: Recording, length: int, fit_rows: int) -> Device:
    if fit_rows < 2 * length:
        raise ConfigError(f"--fit-rows {fit_rows}: windows of {length} rows need at least {2 * length}")
    view = np.lib.stride_tricks.sliding_window_view(recording.rows, length, axis=0)
    return Device(recording, view.transpose(0, 2, 1), fit_rows - length + 1)


def _without_privacy(
    recipe: Recipe, job: Job, devices: Sequence[Device], profile: DeviceProfile
) -> dict[str, Any]:
    if job.privacy.mode != "none":
        raise ConfigError(
            f"job {job.name!r}: the benchmark wants mode none; --epsilon asks for the private run"
        )
    profile = _row_by_row(profile)
    sets = [_training_set(recipe, job, device, profile, stride=1) for device in devices]
    untrained = initial_model(recipe, job.parameters, job.seed)
    epochs = job.rounds * job.training.local_epochs

    def locally(data: TrainingSet) -> Floats:
        return train_locally(
            recipe, job.parameters, data, job.training, model=untrained, epochs=epochs, seed=job.seed
        )

    federated = federate(recipe, job, sets).model
    together = locally(pooled(sets))
    return {
        "federated": _quality(recipe, job, [federated] * len(devices), devices, profile),
        "untrained": _quality(recipe, job, [untrained] * len(devices), devices, profile)["float32"],
        "local_only": _quality(recipe, job, [locally(data) for data in sets], devices, profile)["float32"],
        "pooled": _quality(recipe, job, [together] * len(devices), devices, profile)["float32"],
    }


def _with_privacy(
    recipe: Recipe, job: Job, devices: Sequence[Device], profile: DeviceProfile, epsilon: float
) -> dict[str, Any]:
    """Train with example-level DP on windows that do not overlap, scaled by public constants alone."""
    length = recipe.input_spec(job.parameters).shape[0]
    examples = max(len(range(0, device.fit, length)) for device in devices)
    private = msgspec.structs.replace(
        job,
        privacy=PrivacySpec("example", epsilon, 1 / (20 * examples)),
        parameters=recipe.check({**job.parameters, "scaling": "public", "centring": "window"}),
        training=msgspec.structs.replace(job.training, batch_size=examples, learning_rate=0.02),
    )
    profile = _row_by_row(profile)
    sets = [_training_set(recipe, private, device, profile, stride=length) for device in devices]
    found = federate(recipe, private, sets)
    untrained = initial_model(recipe, private.parameters, job.seed)
    quality = _quality(recipe, private, [found.model] * len(devices), devices, profile)
    return {
        **quality,
        "untrained": _quality(recipe, private, [untrained] * len(devices), devices, profile)["float32"],
        "epsilon_asked": epsilon,
        "epsilon": found.epsilon,
        "delta": private.privacy.delta,
        "noise_multiplier": found.noise_multiplier,
        "unit": "one window; windows do not overlap, so one row is part of one example",
        "examples_per_device": examples,
        "outside_epsilon": "scaling, threshold and alarms: fitted on the device, and they stay there",
    }


def _training_set(
    recipe: Recipe, job: Job, device: Device, profile: DeviceProfile, stride: int
) -> TrainingSet:
    windows = np.ascontiguousarray(device.windows[: device.fit : stride])
    private = job.privacy.mode != "none"
    return recipe.training_set(windows, [None] * len(windows), profile, job.parameters, private)


def _quality(
    recipe: Recipe, job: Job, models: Sequence[Floats], devices: Sequence[Device], profile: DeviceProfile
) -> dict[str, Any]:
    """Return the rates of one model per device, float and int8, through ONNX Runtime as a device runs it."""
    public = recipe.public_set(job.parameters)
    counts: dict[Precision, RowCounts] = {"float32": RowCounts(), "int8": RowCounts()}
    per_file: dict[str, float] = {}
    exported: dict[int, tuple[bytes, bytes]] = {}
    for model, device in zip(models, devices, strict=True):
        if id(model) not in exported:
            plain = _export(recipe, job, model)
            exported[id(model)] = (plain, quantise_onnx(plain, public.x[public.calibration]))
        for precision, data in zip(counts, exported[id(model)], strict=True):
            found = _detect(recipe, job, data, precision, device, profile)
            counts[precision] += found
            if precision == "float32":
                per_file[device.recording.name] = round(found.rates()["f1"], 3)
    rates: dict[str, Any] = {precision: count.rates() for precision, count in counts.items()}
    return {**rates, "f1_per_file": per_file}


def _detect(
    recipe: Recipe, job: Job, data: bytes, precision: Precision, device: Device, profile: DeviceProfile
) -> RowCounts:
    rule = recipe.scoring(job.parameters)
    if rule is None:
        raise ConfigError(f"recipe {recipe.name!r} gives no anomaly scores")
    scorer = Scorer(rule, profile)
    with tempfile.TemporaryDirectory(prefix="hedgerow-skab-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        shape = recipe.input_spec(job.parameters).shape
        runtime = open_runtime(
            "onnxruntime", path, precision, shape, recipe.output_spec(job.parameters).shape
        )

        def predict(x: Floats) -> Floats:
            return np.concatenate([runtime.infer(x[n : n + 1]).copy() for n in range(len(x))])

        fitted = scorer.fit(device.windows[: device.fit], predict)
        rest = device.windows[device.fit :]
        scores, _ = scorer.judge_all(rest, predict(scorer.transform(rest, fitted)), fitted)
        runtime.close()
    return device.judge(np.array([score.alarm for score in scores], np.bool_))


def _export(recipe: Recipe, job: Job, model: Floats) -> bytes:
    module = recipe.build(job.parameters)
    load_vector(module, model)
    return export_onnx(module, recipe.input_spec(job.parameters).shape)


def _baseline(devices: Sequence[Device], profile: DeviceProfile) -> dict[str, float]:
    baseline = StatisticalBaseline(profile)

    def alarms(device: Device, _: int) -> Flags:
        fitted = baseline.fit(device.windows[: device.fit])
        rest = device.windows[device.fit :]
        return np.array([baseline.score(window, fitted).alarm for window in rest], np.bool_)

    return _total(devices, alarms)


def _total(devices: Sequence[Device], alarms: Callable[[Device, int], Flags]) -> dict[str, float]:
    parts = [device.judge(alarms(device, len(device.windows) - device.fit)) for device in devices]
    return sum(parts, RowCounts()).rates()


def _row_by_row(profile: DeviceProfile) -> DeviceProfile:
    return msgspec.structs.replace(profile, window=msgspec.structs.replace(profile.window, stride=1))


def _table(result: dict[str, Any]) -> str:
    rows = {
        "federated float32": result["federated"]["float32"],
        "federated int8": result["federated"]["int8"],
        "pooled": result["pooled"],
        "local only": result["local_only"],
        "untrained": result["untrained"],
        "statistical baseline": result["statistical_baseline"],
        "everything is an anomaly": result["everything_is_anomaly"],
    }
    if "private" in result:
        label = f"federated, epsilon {result['private']['epsilon']:.2f}"
        rows |= {f"{label} {kind}": result["private"][kind] for kind in ("float32", "int8")}
    lines = [f"{result['files']} files, {result['rows_scored']} rows scored; {result['protocol']}"]
    lines.append(f"{'':36} {'F1':>6} {'FAR %':>7} {'MAR %':>7}")
    for name, rates in rows.items():
        lines.append(f"{name:36} {rates['f1']:6.3f} {rates['far_percent']:7.2f} {rates['mar_percent']:7.2f}")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hedgerow bench skab",
        description="Federated anomaly detection on labelled recordings in SKAB's format, one file a device.",
        epilog="example: hedgerow bench skab SKAB/valve1 SKAB/valve2 --epsilon 8 --json",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders of CSV files")
    parser.add_argument("--epsilon", type=float, default=None, help="train with example-level privacy too")
    parser.add_argument(
        "--fit-rows", type=int, default=FIT_ROWS, help="rows to fit on (the protocol's are 400)"
    )
    configs = configs_folder()
    parser.add_argument("--job", type=Path, default=configs / "jobs" / "skab-anomaly.toml", help="job file")
    parser.add_argument("--profile", type=Path, default=configs / "profiles" / "skab.toml", help="profile")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
