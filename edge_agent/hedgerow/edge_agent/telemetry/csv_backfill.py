"""Recordings from CSV files through the same rules and windower as live messages, to the same bytes."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hedgerow.edge_agent.telemetry.reading import Refusal, Row
from hedgerow.edge_agent.telemetry.timestamps import parse_text_time
from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.profile import CsvSpec, DeviceProfile

_MISSING = frozenset({"", "nan", "null", "none", "na", "n/a"})


def read_rows(path: Path, profile: DeviceProfile, counts: Counter[str]) -> Iterator[Row]:
    """Yield the rows of a file in its order; what is not usable is counted in ``counts`` by reason.

    Only the timestamp and the mapped columns are read. Raises ConfigError if the profile has no ``[csv]``, the file is
    missing, too large, or lacks a column.
    """
    spec = profile.csv
    if spec is None:
        raise ConfigError(f"profile {profile.name!r} has no [csv] table, so {path} cannot be read with it")
    try:
        size = path.stat().st_size
        if size > limits.MAX_CSV_BYTES:
            raise ConfigError(f"{path}: {size} bytes; at most {limits.MAX_CSV_BYTES}")
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = csv.reader(file, delimiter=spec.separator)
            columns = _columns(next(_bounded(lines), []), spec, profile.channels, path)
            for cells in _bounded(lines):
                row = _row(cells, columns, spec, counts)
                if row is not None:
                    yield row
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from error


def _bounded(lines: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield lines that hold something; csv itself refuses a field over 128 KiB."""
    return (cells for cells in lines if cells)


def _columns(header: list[str], spec: CsvSpec, channels: Sequence[str], path: Path) -> tuple[int, list[int]]:
    titles = {title.strip(): position for position, title in enumerate(header)}
    wanted = [spec.columns.get(name, name) for name in channels]
    missing = [title for title in (spec.timestamp, *wanted) if title not in titles]
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, titles))} "
            f"(separator {spec.separator!r})"[:1000]
        )
    return titles[spec.timestamp], [titles[title] for title in wanted]


def _row(cells: list[str], columns: tuple[int, list[int]], spec: CsvSpec, counts: Counter[str]) -> Row | None:
    stamp, wanted = columns
    if len(cells) <= max(stamp, *wanted):
        counts["wrong-shape"] += 1
        return None
    try:
        time_us = parse_text_time(cells[stamp].strip(), spec.timestamp_format)
    except ValueError:
        counts["bad-timestamp"] += 1
        return None
    values: list[tuple[int, float]] = []
    for position, column in enumerate(wanted):
        refusal = _value(cells[column].strip(), position, values)
        if refusal is not None:
            counts[refusal.reason] += 1
    return Row(time_us, tuple(values)) if values else None


def _value(text: str, position: int, values: list[tuple[int, float]]) -> Refusal | None:
    if text.lower() in _MISSING:
        return Refusal("missing")
    try:
        number = float(text)
    except ValueError:
        return Refusal("not-a-number")
    if not math.isfinite(number):
        return Refusal("not-a-number")
    values.append((position, number))
    return None
