"""``python -m hedgerow.edge_agent.updater``: one update, one JSON line, one exit code (see ``result.ExitCode``)."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.updater.errors import UpdateError
from hedgerow.edge_agent.updater.result import Reason, UpdateResult, encode_result
from hedgerow.edge_agent.updater.stage import stage
from hedgerow.shared.errors import ContentError, HedgerowError, StorageError, TransportError
from hedgerow.shared.messages import BundleTarget, decode
from hedgerow.shared.unreadable import UNREADABLE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one update. Exit codes: see ``ExitCode``; the result is the last line of standard output."""
    parser = argparse.ArgumentParser(prog="hedgerow.edge_agent.updater", description=main.__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the agent's home")
    parser.add_argument("--url", required=True, help="the server, https://HOST:PORT")
    parser.add_argument("--target-json", required=True, help="the desired bundle, as in the desired state")
    parser.add_argument("--runtime", action="append", default=[], help="fetch only this runtime's artefacts")
    given = parser.parse_args(arguments)
    try:
        target = decode(given.target_json, BundleTarget)
    except UNREADABLE as error:
        parser.error(f"--target-json: {error}")
    if not given.url.startswith("https://"):
        parser.error("--url must start with https://")
    started = time.monotonic()
    result = _run(given.home, given.url.rstrip("/"), target, frozenset(given.runtime))
    result = msgspec.structs.replace(result, seconds=round(time.monotonic() - started, 3))
    sys.stdout.buffer.write(encode_result(result))
    return int(result.exit_code)


def _run(home: Path, url: str, target: BundleTarget, runtimes: frozenset[str]) -> UpdateResult:
    try:
        return stage(AgentHome(home), url, target, runtimes)
    except UpdateError as error:
        return _failed(error.reason, target, error)
    except StorageError as error:
        return _failed("disk-full" if "No space" in str(error) else "storage", target, error)
    except ContentError as error:
        return _failed("mismatch", target, error)
    except TransportError as error:
        return _failed("unreachable", target, error)
    except (HedgerowError, OSError) as error:
        return _failed("crashed", target, error)


def _failed(reason: Reason, target: BundleTarget, error: Exception) -> UpdateResult:
    return UpdateResult(reason, target.model, target.version, target.manifest_sha256, str(error)[:2000])


if __name__ == "__main__":
    raise SystemExit(main())
