"""The sources by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.tomlfile import from_table
from hedgerow.simulations.population.pool import Pool, Request
from hedgerow.simulations.scenario.spec import PopulationSpec, SourceName


class Source(Protocol):
    """A module of this package."""

    Options: type[msgspec.Struct]

    def read(self, request: Request) -> Pool:
        """Return all examples, and what is held out. Raises ConfigError naming the field, ContentError for bad files."""


class Entry(NamedTuple):
    """Where a source is, whether it reads files, and whether its examples come in groups (None: it depends)."""

    module: str
    files: bool
    grouped: bool | None


SOURCES: dict[SourceName, Entry] = {
    "digits": Entry("digits", False, False),
    "pump": Entry("pump", False, True),
    "synthetic-images": Entry("synthetic_images", False, None),
    "synthetic-vectors": Entry("synthetic_vectors", False, None),
    "csv": Entry("csv_files", True, True),
    "idx": Entry("idx", True, False),
    "images": Entry("image_folders", True, None),
    "npz": Entry("npz", True, None),
    "sklearn": Entry("sklearn_sets", False, False),
}


def source_of(name: SourceName) -> Source:
    """Return a source; imported when asked for, because some load scikit-learn."""
    found = import_module(f"hedgerow.simulations.population.sources.{SOURCES[name].module}")
    return cast("Source", found)


def options_of(spec: PopulationSpec, where: str) -> Any:
    """Return the source's options, checked. Raises ConfigError naming ``population.options`` and the key."""
    try:
        return from_table(spec.options, source_of(spec.source).Options, f"{where}: population.options")
    except ConfigError as error:
        raise ConfigError(f"{error} (source {spec.source!r})") from error
