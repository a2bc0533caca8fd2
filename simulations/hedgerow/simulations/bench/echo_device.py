"""Device processes for benchmarks: real nodes that answer every round at once with the same random update.

They fetch and hash the model as a trainer does (unless told not to) and hash what they send; only training is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.edge_agent.trainer.fleet import FleetNode, JobClosedError
from hedgerow.shared.job import TrainInstruction, TrainReply

_LOOK_S = 2.0


def identity_in(folder: Path) -> IdentityFiles:
    """Return the identity whose files lie in ``folder``."""
    return IdentityFiles(folder / "key.pem", folder / "cert.pem", folder / "ca.pem", folder / "facts.json")


def serve(node: FleetNode, update: memoryview, sha256: str, fetch: bool) -> None:
    """Answer until the job is closed."""
    node.activate(120.0)
    try:
        while True:
            got = node.receive(_LOOK_S)
            if got is None:
                continue
            instruction, handle = got
            if fetch and not instruction.model:
                node.fetch_model(instruction.model_sha256)
            node.reply(handle, _header(instruction, update, sha256), update)
    except JobClosedError:
        return
    finally:
        node.close()


def _header(instruction: TrainInstruction, update: memoryview, sha256: str) -> TrainReply:
    return TrainReply(
        job_id=instruction.job_id,
        round=instruction.round,
        exchange=instruction.exchange,
        n_parameters=instruction.n_parameters,
        packing=instruction.packing,
        update_bytes=len(update),
        update_sha256=sha256,
        n_samples=1,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run as one process: ``--home`` may be given several times, a thread and a connection for each."""
    options = argparse.ArgumentParser(description="answer rounds of a benchmark")
    options.add_argument("--url", required=True)
    options.add_argument("--job", required=True)
    options.add_argument("--home", type=Path, action="append", required=True)
    options.add_argument("--values", type=int, required=True)
    options.add_argument("--no-fetch", action="store_true")
    args = options.parse_args(argv)
    pool = np.random.default_rng().standard_normal(args.values + len(args.home), np.float32) / 1000
    threads = []
    for index, home in enumerate(args.home):
        # Every device's own: equal objects would be stored once by the server, which is not what devices send.
        update = pool[index : index + args.values].astype("<f4", copy=False).view(np.uint8).data
        node = FleetNode(args.url, identity_in(home), args.job)
        sha256 = hashlib.sha256(update).hexdigest()
        threads.append(threading.Thread(target=serve, args=(node, update, sha256, not args.no_fetch)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
