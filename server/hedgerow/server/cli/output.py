"""How commands speak: a table for people, one JSON document for programs, errors on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def run_app(app: typer.Typer, name: str, arguments: list[str]) -> int:
    """Run a typer app with our arguments and return its exit code (typer's usage errors are 2)."""
    try:
        result = app(args=arguments, prog_name=f"hedgerow {name}", standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except typer.Abort:
        return 130
    except Exception as error:  # typer raises click's usage errors, which know how to show themselves
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", 2))
    return result if isinstance(result, int) else 0


def print_json(value: Any) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Print a table, or ``empty`` (what to do next) when there are no rows."""
    console = Console()
    if not rows:
        console.print(empty, highlight=False, markup=False, emoji=False)
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as it is: a name in brackets is no markup
    console.print(table, highlight=False)


def say(text: str) -> None:
    """Print one line for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
