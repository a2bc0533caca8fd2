"""The command line of ``hedgerow doctor``: which checks run, in which order, and the exit code."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from hedgerow.edge_agent.cli import default_home
from hedgerow.edge_agent.doctor.databases import check_database, check_ledger
from hedgerow.edge_agent.doctor.device import (
    check_certificate,
    check_clock,
    check_config,
    check_disk,
    check_joined,
    check_profile,
    check_slots,
)
from hedgerow.edge_agent.doctor.finding import Finding, as_text, diagnosis
from hedgerow.edge_agent.doctor.installation import EXTRAS, check_engine, check_extra, check_python
from hedgerow.edge_agent.doctor.network import check_broker, check_server
from hedgerow.edge_agent.doctor.server_home import check_authority, check_set_up, check_tuf
from hedgerow.edge_agent.home import AgentHome
from hedgerow.shared.profile import DeviceProfile

_ASIDE: Final = "the agent moves it aside at its next start and begins a new one; check the disk"


def main(arguments: list[str]) -> int:
    """Run ``hedgerow doctor``. Exit codes: 0 all well, 1 something is wrong, 2 wrong usage."""
    try:
        given = _parser().parse_args(arguments)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 2
    found = diagnosis([*_installation(), *device_findings(given.home), *server_findings(given.server_home)])
    text = msgspec.json.encode(found).decode() + "\n" if given.json else as_text(found)
    sys.stdout.write(text)
    return 0 if found.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hedgerow doctor",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Find what is wrong with this installation, this device and this server; nothing is changed.",
        epilog="Exit codes: 0 all well, 1 something is wrong, 2 wrong usage.\n"
        "Example: hedgerow doctor --home /var/lib/hedgerow --json",
    )
    home = "the device's folder (default: HEDGEROW_HOME or /var/lib/hedgerow, where there is one)"
    server = "the server's folder (default: HEDGEROW_SERVER_HOME or ~/.hedgerow/server, where there is one)"
    parser.add_argument("--home", type=Path, metavar="DIR", help=home)
    parser.add_argument("--server-home", type=Path, metavar="DIR", help=server)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _installation() -> list[Finding]:
    engines = [check_engine("onnxruntime"), check_engine("litert")]
    return [check_python(), *(check_extra(name) for name in EXTRAS), *engines]


def device_findings(folder: Path | None) -> list[Finding]:
    """Check the device of ``folder``; without one, that of the default folder if there is one."""
    home = AgentHome(folder or default_home())
    if folder is None and not home.path.is_dir():
        return [Finding("device", "skipped", f"none on this machine: no {home.path}")]
    joined = check_joined(home)
    findings = [joined, check_disk(home.path), check_clock(home), *check_slots(home), *_databases(home)]
    if joined.state == "wrong":
        return findings
    return [*findings, *_joined_device(home)]


def _joined_device(home: AgentHome) -> list[Finding]:
    findings = [check_certificate(home)]
    told, config = check_config(home)
    findings.append(told)
    if config is None:
        return findings
    told, profile = check_profile(home, config)
    findings += [told, *_engines_of(profile), check_server(home, config), check_broker(home, config)]
    return findings


def _engines_of(profile: DeviceProfile | None) -> list[Finding]:
    """Find engines that the profile names and that do not run here."""
    wanted = () if profile is None else profile.runtimes
    found = {kind: check_engine(kind) for kind in wanted}
    usable = [kind for kind, finding in found.items() if finding.state == "ok"]
    if not found or len(usable) == len(found):
        return []
    missing = ", ".join(kind for kind in found if kind not in usable)
    what = f"the profile names {missing}, which does not run here"
    remedy = "pip install 'hedgerow[tflite]', or take it out of runtimes in the profile"
    return [Finding("profile's engines", "warning" if usable else "wrong", what, remedy)]


def _databases(home: AgentHome) -> list[Finding]:
    return [
        check_database("samples", home.samples, _ASIDE),
        check_database("outbox", home.outbox, _ASIDE),
        check_ledger(home.ledger),
    ]


def server_findings(folder: Path | None) -> list[Finding]:
    """Check the server of ``folder``; without one, that of the default folder if there is one."""
    usual = Path(os.environ.get("HEDGEROW_SERVER_HOME", "~/.hedgerow/server")).expanduser()
    root = folder or usual
    if folder is None and not root.is_dir():
        return [Finding("server home", "skipped", f"none on this machine: no {root}")]
    set_up = check_set_up(root)
    if set_up.state == "wrong":
        return [set_up]
    database = check_database("server database", root / "hedgerow.db", "restore hedgerow.db from a backup")
    return [set_up, check_authority(root), database, *check_tuf(root)]
