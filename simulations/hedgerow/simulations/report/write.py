"""Writing what people look at beside ``results.json``: CSV, plots as PNG, one page."""

from __future__ import annotations

from pathlib import Path

from hedgerow.shared.errors import StorageError
from hedgerow.shared.files import write_atomically
from hedgerow.simulations.report.page import page_of
from hedgerow.simulations.report.plots import plots_of, png_of
from hedgerow.simulations.report.tables import devices_csv, rounds_csv
from hedgerow.simulations.run.records import Result


def write_report(result: Result, folder: Path) -> list[Path]:
    """Write ``rounds.csv``, ``devices.csv``, ``plots/*.png`` and ``report.html`` into ``folder``; return their paths.

    Raises StorageError naming the path if the disk refuses, ModuleNotFoundError without matplotlib (the tables are
    written by then).
    """
    written = [
        _text(folder / "rounds.csv", rounds_csv(result)),
        _text(folder / "devices.csv", devices_csv(result)),
    ]
    plots = folder / "plots"
    try:
        plots.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{plots}: cannot be made: {error.strerror}") from error
    for plot in plots_of(result):
        path = plots / f"{plot.name}.png"
        write_atomically(path, png_of(plot))
        written.append(path)
    return [*written, _text(folder / "report.html", page_of(result))]


def _text(path: Path, text: str) -> Path:
    write_atomically(path, text.encode())
    return path
