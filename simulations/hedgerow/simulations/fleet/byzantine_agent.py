"""An agent whose trainers lie: ``python -m hedgerow.simulations.fleet.byzantine_agent KIND SCALE FROM_ROUND SEED DEVICE agent run``.

The shipped agent has no such switch: this process replaces the command by which its supervisor starts trainers, and then
runs the real ``hedgerow``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hedgerow.edge_agent.trainer import supervisor
from hedgerow.shared.cli import main as hedgerow

N_WORDS = 5
TRAINER = "hedgerow.simulations.fleet.byzantine_trainer"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent's command after the five words of the attack."""
    given = list(sys.argv[1:] if argv is None else argv)
    words, command = given[:N_WORDS], given[N_WORDS:]

    def lying(home: Path, job_id: str) -> list[str]:
        return [sys.executable, "-m", TRAINER, *words, "--home", str(home), "--job", job_id]

    supervisor.trainer_command = lying
    return hedgerow(command)


if __name__ == "__main__":
    raise SystemExit(main())
