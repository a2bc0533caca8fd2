"""Folders of CSV files, one group a file: rows as vectors with a label, or windows of rows for an anomaly recipe.

For the anomaly recipe columns are the profile's channels (by its ``csv`` table, or under their own names), raw: the recipe
scales by the profile's nominal values and spreads. Without a profile these are the mean and the standard deviation over all
files, which a fleet would have to know as public constants.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from hedgerow.shared.errors import ContentError
from hedgerow.shared.profile import Channel, DeviceProfile
from hedgerow.simulations.population.pool import Ints, Labelled, Pool, Request
from hedgerow.simulations.population.sources.csv_table import Table, is_number, numbers, read_table, words
from hedgerow.simulations.population.sources.held import DEFAULT_SHARE, Share, printable, standardised
from hedgerow.simulations.population.sources.shapes import check_labels, fit_vectors

MAX_FILES: Final = 100_000
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
"""A class written as a number: what more digits mean, int64 cannot hold, and it is a name."""
Doubles = npt.NDArray[np.float64]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``label`` is the class's column (numbers from 0, or names, numbered in their order; for windows anything but 0 or nothing
    is a fault). ``columns`` are the inputs, all other numeric columns but ``ignore`` if empty. ``standardise`` brings them to
    about 0 to 1 (vectors only). ``stride`` rows lie between windows (default: the profile's, or a window's length).
    ``held_out`` is the share kept for the central evaluation: of rows at random, of each file's windows the last.
    """

    label: str | None = None
    separator: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    columns: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    standardise: bool = True
    stride: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    held_out: Share = DEFAULT_SHARE


class _File(NamedTuple):
    path: Path
    values: Doubles
    labels: list[str] | None


def read(request: Request) -> Pool:
    """Return the rows or windows of all files. Raises ContentError, with file and line, for what is not as it must be."""
    return _windows(request) if request.recipe.task == "anomaly" else _vectors(request)


def _files(request: Request, separator: str) -> list[tuple[Path, Table]]:
    folder = request.folder
    paths = sorted(folder.rglob("*.csv"))[: MAX_FILES + 1] if folder.is_dir() else [folder]
    if not paths or len(paths) > MAX_FILES:
        raise request.wrong("path", f"expected 1 to {MAX_FILES} files named *.csv in {folder}")
    return [(path, read_table(path, separator)) for path in paths]


def _group_names(request: Request, files: list[tuple[Path, Table]]) -> tuple[str, ...]:
    folder = request.folder
    return tuple(
        printable(str(path.relative_to(folder)) if path != folder else path.name) for path, _ in files
    )


def _vectors(request: Request) -> Pool:
    options: Options = request.options
    if options.label is None:
        raise request.wrong("options.label", f"recipe {request.recipe.name!r} needs a column of classes")
    files = _files(request, options.separator)
    titles = options.columns or _numeric(files[0], options)
    read = [
        _File(path, numbers(table, titles, path), _named(table, options.label, path)) for path, table in files
    ]
    values = np.concatenate([one.values for one in read])
    named = [label for one in read for label in one.labels or ()]
    if options.standardise:
        values = standardised(values)
    groups = np.repeat(np.arange(len(read)), [len(one.values) for one in read])
    labels = check_labels(_classes(named), request)
    examples = Labelled(fit_vectors(values.astype(np.float32), request), labels)
    if len(examples) < 2:
        raise ContentError(f"{request.folder}: one row; at least two are needed, one is held out")
    held = np.zeros(len(examples), np.bool_)
    count = min(len(held) - 1, max(1, round(options.held_out * len(held))))
    held[np.random.default_rng([request.seed, 12]).permutation(len(held))[:count]] = True
    return Pool(examples.take(~held), groups[~held], _group_names(request, files), examples.take(held))


def _numeric(first: tuple[Path, Table], options: Options) -> tuple[str, ...]:
    """Return the titles whose first cell is a number, without label and what is to be ignored."""
    path, table = first
    left_out = {options.label, *options.ignore}
    found = tuple(
        title
        for title, column in zip(table.titles, table.columns, strict=True)
        if title not in left_out and is_number(column[0])
    )
    if not found:
        raise ContentError(f"{path}: has no numeric column; there are {', '.join(table.titles)}")
    return found


def _named(table: Table, label: str, path: Path) -> list[str]:
    """Return a file's classes as text. Raises ContentError with the line for a row without one."""
    named = words(table, label, path)
    if "" in named:
        raise ContentError(
            f"{path}: line {named.index('') + 2}, column {label!r}: expected a class, got nothing"
        )
    return named


def _classes(named: list[str]) -> Ints:
    """Return classes by number: whole numbers as they are, names in their alphabetical order."""
    if all(_WHOLE.fullmatch(label) for label in named):
        return np.array([int(label) for label in named], np.int64)
    numbered = {name: n for n, name in enumerate(sorted(set(named)))}
    return np.array([numbered[label] for label in named], np.int64)


def _windows(request: Request) -> Pool:
    options: Options = request.options
    channels = tuple(request.parameters["channels"])
    csv = request.profile.csv if request.profile else None
    titles = [csv.columns.get(name, name) if csv else name for name in channels]
    files = _files(request, csv.separator if csv else options.separator)
    read = [
        _File(
            path, numbers(table, titles, path), words(table, options.label, path) if options.label else None
        )
        for path, table in files
    ]
    profile = request.profile or _profile(channels, np.concatenate([one.values for one in read]))
    length = request.spec.shape[0]
    stride = options.stride or (request.profile.window.stride if request.profile else length)
    kept, held = [], []
    groups = []
    for n, one in enumerate(read):
        windows = _cut(one, length, stride)
        count = max(1, round(options.held_out * len(windows)))
        if len(windows) - count < 1:
            raise ContentError(
                f"{one.path}: {len(one.values)} rows give {len(windows)} windows of {length}; at least two are needed"
            )
        order = np.arange(len(windows))
        kept.append(windows.take(order[:-count]))
        held.append(windows.take(order[-count:]))
        groups.append(np.full(len(windows) - count, n, np.int64))
    names = _group_names(request, files)
    return Pool(_joined(kept), np.concatenate(groups), names, _joined(held), ordered=True, profile=profile)


def _cut(one: _File, length: int, stride: int) -> Labelled:
    """Return a file's windows, float32 ``(n, length, channels)``, and 1 for those with a row that is labelled a fault."""
    if len(one.values) < length:
        return Labelled(np.zeros((0, length, one.values.shape[1]), np.float32), np.zeros(0, np.int64))
    windows = np.lib.stride_tricks.sliding_window_view(one.values, length, axis=0)[::stride]
    samples = np.ascontiguousarray(windows.transpose(0, 2, 1), np.float32)
    faulty = np.array([_is_fault(label) for label in one.labels or ["0"] * len(one.values)])
    labels = np.lib.stride_tricks.sliding_window_view(faulty, length)[::stride].any(axis=1)
    return Labelled(samples, np.asarray(labels, np.int64))


def _is_fault(label: str) -> bool:
    return bool(label) and not (is_number(label) and float(label) == 0)


def _joined(parts: list[Labelled]) -> Labelled:
    labels = [part.labels for part in parts if part.labels is not None]
    return Labelled(np.concatenate([part.samples for part in parts]), np.concatenate(labels))


def _profile(channels: tuple[str, ...], values: Doubles) -> DeviceProfile:
    """Return a profile whose nominal values and spreads are those of the files."""
    mean, spread = values.mean(axis=0), values.std(axis=0)
    low, high = values.min(axis=0), values.max(axis=0)
    return DeviceProfile(
        name="csv",
        version=1,
        channel=tuple(
            Channel(name, "1", float(low[n]), float(high[n]), float(mean[n]), float(spread[n]) or 1.0)
            for n, name in enumerate(channels)
        ),
    )
