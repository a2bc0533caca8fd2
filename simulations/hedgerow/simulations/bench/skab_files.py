"""Reading labelled recordings in SKAB's format: the channels by a profile, the labels for the judge alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError, ContentError
from hedgerow.shared.profile import CsvSpec, DeviceProfile

LABEL: Final = "anomaly"
_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Recording:
    """One experiment: readings float32 ``(n, c)`` in order of time, labels bool ``(n,)``; ``held`` cells were empty."""

    name: str
    rows: npt.NDArray[np.float32]
    anomaly: npt.NDArray[np.bool_]
    held: int


def find_files(folders: Sequence[Path]) -> list[Path]:
    """Return the CSV files of the folders, in order of folder and of their number. Raises ConfigError for none."""
    found: list[Path] = []
    for folder in folders:
        files = sorted(folder.glob("*.csv"), key=lambda path: (len(path.stem), path.stem))
        if not files:
            raise ConfigError(f"{folder}: no CSV files there; name a folder of labelled recordings")
        found += files
    return found


def read_recording(path: Path, profile: DeviceProfile, least_rows: int) -> Recording:
    """Return one file. An empty or non-numeric cell is held from the row before.

    Raises ConfigError if it has no columns of the profile or no labels, ContentError if it is too short (fewer than
    ``least_rows``), too large, or its first row is incomplete.
    """
    values = _values(path, profile, (LABEL,), least_rows)
    missing = int(np.isnan(values[:, :-1]).sum())
    filled = _held(values, path)
    name = f"{path.parent.name}/{path.stem}"
    return Recording(name, filled[:, :-1].astype(np.float32), filled[:, -1] > 0.5, missing)


def read_channels(path: Path, profile: DeviceProfile, least_rows: int) -> npt.NDArray[np.float32]:
    """Return one file's readings, ``(n, c)``, and look at no other column: a file without labels will do.

    Raises as ``read_recording`` does.
    """
    return _held(_values(path, profile, (), least_rows), path).astype(np.float32)


def _values(
    path: Path, profile: DeviceProfile, beside: tuple[str, ...], least_rows: int
) -> npt.NDArray[np.float64]:
    """Return the channels' columns and those titled ``beside``, ``(n, c + len(beside))``, NaN where not a number."""
    if profile.csv is None:
        raise ConfigError(f"profile {profile.name!r} has no [csv] table")
    wanted = [profile.csv.columns.get(channel, channel) for channel in profile.channels]
    try:
        if not path.is_file() and path.exists():
            # A pipe would be waited for, a device read for ever.
            raise ContentError(f"{path}: not a file")
        if path.stat().st_size > limits.MAX_CSV_BYTES:
            raise ContentError(f"{path}: larger than {limits.MAX_CSV_BYTES} bytes")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=profile.csv.separator)
            places = _places(next(reader, []), [*wanted, *beside], profile.csv, path)
            cells = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ContentError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error
    except OSError as error:
        raise ContentError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(cells) < least_rows:
        raise ContentError(f"{path}: {len(cells)} rows; the protocol needs at least {least_rows}")
    return np.array([[_number(row, place) for place in places] for row in cells], np.float64)


def _places(titles: list[str], wanted: Sequence[str], mapping: CsvSpec, path: Path) -> list[int]:
    missing = [title for title in wanted if title not in titles]
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(missing)} (separator {mapping.separator!r}); "
            f"there are {', '.join(titles) or 'none'}"
        )
    return [titles.index(title) for title in wanted]


def _number(row: list[str], place: int) -> float:
    try:
        value = float(row[place])
    except (ValueError, IndexError):
        return math.nan
    return value if abs(value) <= _LARGEST else math.nan


def _held(values: npt.NDArray[np.float64], path: Path) -> npt.NDArray[np.float64]:
    if np.isnan(values[0]).any():
        raise ContentError(f"{path}: the first row has an empty cell, there is nothing to hold")
    at = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    return np.asarray(values[np.maximum.accumulate(at, axis=0), np.arange(values.shape[1])])
