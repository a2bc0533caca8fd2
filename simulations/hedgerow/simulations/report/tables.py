"""A run's rounds and devices as CSV: one row each, columns in a fixed order, empty where nothing is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from hedgerow.simulations.run.records import Result


def rounds_csv(result: Result) -> str:
    """Return the rounds, columns as ``Result.records`` names them."""
    return as_csv(result.records())


def devices_csv(result: Result) -> str:
    """Return the devices at the end of the run."""
    return as_csv(msgspec.to_builtins(record) for record in result.device_records)


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return ``rows`` with a header of all keys, in the order in which they first appear."""
    found = list(rows)
    names = list(dict.fromkeys(name for row in found for name in row))
    out = io.StringIO()
    # A lone carriage return in a name ends a row for whoever reads, and Python does not quote it.
    odd = any("\r" in str(text) for row in found for item in row.items() for text in item)
    quoting: Final = csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in found)
    return out.getvalue()
