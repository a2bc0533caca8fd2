"""What the demo plays: which machines, which profile, which jobs. Simulated pumps, or recordings from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.shared.profile import DeviceProfile, read_profile
from hedgerow.shared.tomlfile import parse_toml, read_toml
from hedgerow.simulations.bench.skab_files import find_files, read_recording
from hedgerow.simulations.demo.sensors import RecordedSensor, Sensor, SimulatedSensor

DEVICES: Final = 5
SIMULATED_TRAINING_ROWS: Final = 4000
RECORDED_TRAINING_ROWS: Final = 400
RECORDED_LEAST_ROWS: Final = 500

_SOURCE: Final = """
[[source]]
topic = "plant/{{device}}/telemetry"
payload = "object"
timestamp = "time"

[source.fields]
{fields}
"""
_DIGITS: Final = """
[[tensor]]
name = "digit"
dtype = "uint8"
shape = [8, 8, 1]
kind = "image"
"""


class Scene(msgspec.Struct, frozen=True):
    """The machines by device name, the profile's text per device, and the jobs to run in order."""

    source: str
    profile: DeviceProfile
    texts: dict[str, str]
    sensors: dict[str, Sensor]
    training_rows: int
    jobs: tuple[Job, ...]
    recorded: bool

    def profile_of(self, device: str) -> DeviceProfile:
        """Return a device's profile as its agent reads it."""
        return parse_toml(self.texts[device].encode(), DeviceProfile, device)


def simulated(configs: Path, seed: int) -> Scene:
    """Return the scene of five simulated pumps, one of which serves LiteRT."""
    text = (configs / "profiles" / "pump.toml").read_text(encoding="utf-8")
    names = [f"pump-{n + 1}" for n in range(DEVICES)]
    return Scene(
        source="simulated pumps",
        profile=read_profile(configs / "profiles" / "pump.toml"),
        texts={name: _with_runtime(text, n) for n, name in enumerate(names)},
        sensors={name: SimulatedSensor(n, seed) for n, name in enumerate(names)},
        training_rows=SIMULATED_TRAINING_ROWS,
        jobs=(_job(configs, "pump-anomaly"), _job(configs, "digits")),
        recorded=False,
    )


def recorded(configs: Path, folder: Path, profile_file: Path, devices: int) -> Scene:
    """Return the scene of the first ``devices`` recordings of ``folder``, one a device.

    Raises ConfigError if there are fewer, or the profile does not fit them.
    """
    profile = read_profile(profile_file)
    files = find_files([folder])
    if len(files) < devices:
        raise ConfigError(f"{folder}: {len(files)} recordings; the demo plays {devices} devices, one a file")
    text = profile_file.read_text(encoding="utf-8")
    if not profile.source:
        fields = "\n".join(f'{name} = "{name}"' for name in profile.channels)
        text += _SOURCE.format(fields=fields)
    if not profile.tensor:
        text += _DIGITS
    names = [f"{profile.name}-{path.stem}" for path in files[:devices]]
    sensors: dict[str, Sensor] = {
        name: RecordedSensor(read_recording(path, profile, RECORDED_LEAST_ROWS))
        for name, path in zip(names, files, strict=False)
    }
    return Scene(
        source=f"{devices} recordings",
        profile=profile,
        texts={name: _with_runtime(text, n) for n, name in enumerate(names)},
        sensors=sensors,
        training_rows=RECORDED_TRAINING_ROWS,
        jobs=(_private_job(configs, profile), _job(configs, "digits")),
        recorded=True,
    )


def _with_runtime(text: str, number: int) -> str:
    """Let the second device serve LiteRT, the others ONNX Runtime; top-level keys come first in TOML."""
    runtime = "litert" if number == 1 else "onnxruntime"
    return f'runtimes = ["{runtime}"]\n{text}'


def _job(configs: Path, name: str) -> Job:
    return read_toml(configs / "jobs" / f"{name}.toml", Job)


def _private_job(configs: Path, profile: DeviceProfile) -> Job:
    """Return the profile's own anomaly job where there is one, else the pump's over its channels; made private.

    Privacy and training are the pump job's; a private job scales by the profile's public constants.
    """
    private = _job(configs, "pump-anomaly")
    own = configs / "jobs" / f"{profile.name}-anomaly.toml"
    if own.exists():
        parameters = dict(read_toml(own, Job).parameters)
    else:
        parameters = {key: value for key, value in private.parameters.items() if key != "slow"}
    parameters |= {"rows": profile.window.length, "channels": list(profile.channels), "scaling": "public"}
    return msgspec.structs.replace(
        private,
        name=f"{profile.name}-anomaly",
        population=msgspec.structs.replace(private.population, profile=profile.name),
        parameters=parameters,
    )
