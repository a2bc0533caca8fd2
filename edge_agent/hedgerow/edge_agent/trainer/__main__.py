"""``python -m hedgerow.edge_agent.trainer --home HOME --job JOB_ID``: started by the agent's supervisor."""

from __future__ import annotations

from hedgerow.edge_agent.trainer.process import main

if __name__ == "__main__":
    raise SystemExit(main())
