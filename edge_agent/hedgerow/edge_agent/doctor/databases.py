"""Checks of the SQLite files and the privacy ledger's chain, opened for reading only."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hedgerow.edge_agent.doctor.finding import Finding
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.privacy.ledger_file import verify

_BUSY_S = 5.0


def check_database(name: str, path: Path, remedy: str) -> Finding:
    """Find whether SQLite calls the file sound (``PRAGMA quick_check``); a missing one is not made."""
    if not path.exists():
        return Finding(name, "skipped", f"no {path.name} yet")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
        try:
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        return Finding(name, "wrong", f"{path} cannot be opened: {error}", "run as the user that owns it")
    except sqlite3.DatabaseError as error:
        return Finding(name, "wrong", f"{path} is damaged: {error}", remedy)
    if verdict != "ok":
        return Finding(name, "wrong", f"{path} is damaged: {' '.join(verdict.split())}", remedy)
    return Finding(name, "ok", f"{path.stat().st_size / 1e6:.1f} MB, sound")


def check_ledger(path: Path) -> Finding:
    """Find whether the chain of the privacy ledger holds from its first entry to its last."""
    if not path.exists():
        return Finding("privacy ledger", "skipped", "nothing was released yet")
    try:
        chain = verify(path)
    except (ContentError, StorageError) as error:
        remedy = "keep the file: what it proves is in doubt; training stays refused until it is restored"
        return Finding("privacy ledger", "wrong", str(error), remedy)
    return Finding("privacy ledger", "ok", f"{chain.length} entries, the chain holds")
