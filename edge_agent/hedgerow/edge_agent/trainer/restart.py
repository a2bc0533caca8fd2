"""Whether and when a trainer that ended is started again: a pure decision."""

from __future__ import annotations

import msgspec

from hedgerow.edge_agent.trainer.exits import Exit, is_permanent


class RestartPolicy(msgspec.Struct, frozen=True):
    """At once after a first failure, then after ``first_delay_s``, doubled each time up to ``longest_delay_s``.

    After ``max_failures`` in a row the job is given up; a trainer that lived ``healthy_after_s`` starts a new count.
    """

    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    max_failures: int = 10
    healthy_after_s: float = 60.0


class Verdict(msgspec.Struct, frozen=True):
    """``delay_s`` until the next start, None if there is none; ``failures`` in a row so far."""

    delay_s: float | None
    failures: int


def decide(policy: RestartPolicy, code: int, lived_s: float, failures: int) -> Verdict:
    """Return what follows an exit with ``code`` after ``lived_s`` seconds and ``failures`` earlier ones in a row."""
    if code == Exit.DONE:
        return Verdict(None, 0)
    count = 1 if lived_s >= policy.healthy_after_s else failures + 1
    if is_permanent(code) or count > policy.max_failures:
        return Verdict(None, count)
    if count == 1:
        return Verdict(0.0, count)
    return Verdict(min(policy.first_delay_s * 2.0 ** (count - 2), policy.longest_delay_s), count)
