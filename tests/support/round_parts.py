"""Instructions, replies and devices for tests of the link: real nodes over real TLS, in threads or processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from hedgerow.edge_agent.home import IdentityFiles
from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.edge_agent.trainer.fleet import FleetNode
from hedgerow.shared.job import PrivacySpec, TrainingSpec, TrainInstruction, TrainReply

T = TypeVar("T")
JOB = "job-1"


def instruction(
    n: int = 16, *, round: int = 1, model: bytes = b"", sha256: str = "", job: str = JOB
) -> TrainInstruction:
    """Return an instruction for a model of ``n`` values."""
    return TrainInstruction(
        job_id=job,
        round=round,
        exchange=0,
        recipe="vector",
        recipe_hash="a" * 64,
        parameters={"width": 3},
        privacy=PrivacySpec("none"),
        training=TrainingSpec(learning_rate=0.5),
        packing="float32",
        rounds=10,
        n_parameters=n,
        model_sha256=sha256,
        deadline_s=60.0,
        model=model,
    )


def header(asked: TrainInstruction, payload: bytes) -> TrainReply:
    """Return the header of a reply with that payload."""
    return TrainReply(
        job_id=asked.job_id,
        round=asked.round,
        exchange=asked.exchange,
        n_parameters=asked.n_parameters,
        packing="float32",
        update_bytes=len(payload),
        update_sha256=hashlib.sha256(payload).hexdigest(),
        n_samples=5,
    )


def update(n: int, seed: int = 0) -> bytes:
    """Return a packed update of ``n`` values."""
    return np.random.default_rng(seed).standard_normal(n, np.float32).astype("<f4").tobytes()


def node(url: str, identity: IdentityFiles, job: str = JOB) -> FleetNode:
    """Return a node that retries fast."""
    return FleetNode(url, identity, job, reconnect=Reconnect(first_s=0.02, longest_s=0.2))


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Run a blocking call of a device beside the loop of the server."""
    return await asyncio.to_thread(call, *args)


async def settle(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until ``condition`` holds. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def spawn_echo(url: str, home: Path, n: int, job: str = JOB) -> subprocess.Popen[bytes]:
    """Start a device process that answers every round."""
    command = [sys.executable, "-m", "hedgerow.simulations.bench.echo_device", "--url", url, "--job", job]
    return subprocess.Popen([*command, "--home", str(home), "--values", str(n)], env=os.environ.copy())
