"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option(help="The server's folder (default: HEDGEROW_SERVER_HOME or ~/.hedgerow/server)."),
]
Url = Annotated[str | None, typer.Option(help="Address of a server's operator listener, instead of --home.")]
Token = Annotated[
    str | None, typer.Option(help="Operator token (default: HEDGEROW_TOKEN, or the folder's own).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
