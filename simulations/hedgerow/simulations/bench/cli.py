"""``hedgerow bench``: measurements beside a named peer in the same run; only the one asked for is imported."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

from hedgerow.shared.errors import HedgerowError

BENCHES: Final = {
    "rounds": "a federated round over TLS beside stock Flower",
    "aggregation": "the server's memory while a hundred large updates arrive through the gateway",
    "inference": "Runtime.infer beside the bare engine's call",
    "agent": "the agent's memory at rest, its start, and the base install's size",
    "fleet": "a server with a thousand devices: heartbeats, long polls, rounds; latencies and memory",
    "simulation": "simulated rounds beside a plain PyTorch loop, Flower on Ray and pfl-research",
    "skab": "detection on labelled recordings, float, int8 and private: bench skab FOLDER [FOLDER …]",
    "skab-select": "options of that detection, chosen from normal rows and planted faults without labels",
}


def main(arguments: list[str]) -> int:
    """Run ``hedgerow bench NAME``. Exit codes: 0 done, 1 failed, 2 wrong usage."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in BENCHES:
        sys.stderr.write(f"hedgerow bench: no benchmark {name!r}\n\n{_usage()}")
        return 2
    module = import_module(f"hedgerow.simulations.bench.{name.replace('-', '_')}")
    try:
        return int(module.main(rest))
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except HedgerowError as error:
        sys.stderr.write(f"hedgerow bench {name}: {error}\n")
        return 1


def _usage() -> str:
    rows = "\n".join(f"  {name:<12} {about}" for name, about in BENCHES.items())
    return f"usage: hedgerow bench NAME [OPTIONS]\n\n{rows}\n\nexample: hedgerow bench inference --json\n"
