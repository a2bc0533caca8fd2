"""Reading one CSV file of numbers: a title line, then rows of the same length."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError

MAX_ROWS: Final = 20_000_000
LARGEST: Final = float(np.finfo(np.float32).max)
Doubles = npt.NDArray[np.float64]


class Table(NamedTuple):
    """``titles`` of the columns and the cells as text, one list a column."""

    titles: tuple[str, ...]
    columns: tuple[list[str], ...]

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0


def read_table(path: Path, separator: str) -> Table:
    """Return a file's cells. Raises ContentError, with the line, if it is too large, not text, empty or ragged."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            # A pipe would be waited for, a device read for ever.
            raise ContentError(f"{path}: not a file")
        size = path.stat().st_size
        if size > limits.MAX_CSV_BYTES:
            raise ContentError(f"{path}: {size} bytes; at most {limits.MAX_CSV_BYTES}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            titles = tuple(title.strip() for title in next(reader, []))
            rows = _rows(reader, len(titles), path)
    except OSError as error:
        raise ContentError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ContentError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except csv.Error as error:
        raise ContentError(f"{path}: not CSV: {error}") from error
    if not titles or len(set(titles)) < len(titles):
        raise ContentError(
            f"{path}: line 1: expected different column titles, got {separator.join(titles)!r}"
        )
    if not rows:
        raise ContentError(f"{path}: has no row of values")
    return Table(titles, tuple(list(column) for column in zip(*rows, strict=True)))


def numbers(table: Table, titles: Sequence[str], path: Path) -> Doubles:
    """Return columns as float64 ``(rows, len(titles))``. Raises ContentError, with line and column, for anything
    else, and for what float32 cannot hold.
    """
    out = np.empty((len(table), len(titles)))
    for n, title in enumerate(titles):
        cells = _column(table, title, path)
        try:
            out[:, n] = np.array(cells, np.float64)
        except ValueError:
            line = next(n for n, cell in enumerate(cells) if not is_number(cell))
            raise ContentError(
                f"{path}: line {line + 2}, column {title!r}: expected a number, got {cells[line]!r}"
            ) from None
    # Also what float32 cannot hold, and NaN, which is not below anything.
    bad = np.argwhere(~(np.abs(out) <= LARGEST))
    if len(bad):
        raise ContentError(
            f"{path}: line {bad[0, 0] + 2}, column {titles[bad[0, 1]]!r}: not a finite number of float32"
        )
    return out


def words(table: Table, title: str, path: Path) -> list[str]:
    """Return a column as text. Raises ContentError if there is none of that title."""
    return [cell.strip() for cell in _column(table, title, path)]


def is_number(cell: str) -> bool:
    """Return whether a cell is a number as Python writes them."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(table: Table, title: str, path: Path) -> list[str]:
    if title not in table.titles:
        raise ContentError(f"{path}: has no column {title!r}; there are {', '.join(table.titles)}")
    return table.columns[table.titles.index(title)]


def _rows(reader: Iterable[list[str]], width: int, path: Path) -> list[list[str]]:
    rows = []
    for number, row in enumerate(reader, start=2):
        if not row:
            continue
        if len(row) != width:
            raise ContentError(f"{path}: line {number}: {len(row)} values under {width} titles")
        rows.append(row)
        if len(rows) > MAX_ROWS:
            raise ContentError(f"{path}: more than {MAX_ROWS} rows")
    return rows
