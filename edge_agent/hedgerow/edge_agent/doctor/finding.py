"""What one check found, and how findings are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

State = Literal["ok", "warning", "wrong", "skipped"]
_MARKS: Final[dict[State, str]] = {"ok": "ok", "warning": "warn", "wrong": "WRONG", "skipped": "-"}


class Finding(msgspec.Struct, frozen=True):
    """One check's result: ``what`` was found and, unless all is well, the ``remedy``."""

    name: str
    state: State
    what: str
    remedy: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings of one run; ``ok`` unless one of them is wrong. Warnings do not count as wrong."""

    ok: bool
    findings: tuple[Finding, ...]


def diagnosis(findings: Sequence[Finding]) -> Diagnosis:
    """Return the findings with their verdict."""
    return Diagnosis(all(finding.state != "wrong" for finding in findings), tuple(findings))


def as_text(found: Diagnosis) -> str:
    """Return the findings as a table with a line for each remedy, and the verdict last."""
    width = max((len(finding.name) for finding in found.findings), default=0)
    lines = []
    for finding in found.findings:
        lines.append(f"{_MARKS[finding.state]:<6} {finding.name:<{width}}  {finding.what}")
        if finding.remedy:
            lines.append(f"{'':<6} {'':<{width}}  -> {finding.remedy}")
    counts = {state: sum(f.state == state for f in found.findings) for state in ("wrong", "warning")}
    lines.append("")
    lines.append(f"{counts['wrong']} wrong, {counts['warning']} to look at")
    return "\n".join(lines) + "\n"
