"""A trainer that trains honestly and sends something else: started by ``byzantine_agent`` alone, in simulations."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from hedgerow.edge_agent.config import AgentConfig
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.trainer.fleet_node import FleetNode
from hedgerow.edge_agent.trainer.process import connect_flower
from hedgerow.edge_agent.trainer.process import main as train
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import TrainInstruction, TrainReply
from hedgerow.shared.packing import pack, unpack
from hedgerow.simulations.engine.protocol import Attack
from hedgerow.simulations.fleet.byzantine_agent import N_WORDS
from hedgerow.simulations.lean.sending import falsified


class Lie(NamedTuple):
    """An attack, the round from which it is made, and whose it is."""

    attack: Attack
    from_round: int
    seed: int
    device: int


def read_lie(words: Sequence[str]) -> Lie:
    """Return what ``KIND SCALE FROM_ROUND SEED DEVICE`` say. Raises ConfigError."""
    try:
        kind, scale, from_round, seed, device = words
        attack = msgspec.convert({"kind": kind, "scale": float(scale)}, Attack)
        return Lie(attack, int(from_round), int(seed), int(device))
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"byzantine trainer: expected KIND SCALE FROM_ROUND SEED DEVICE; got {' '.join(words)!r}: {error}"
        ) from error


class LyingNode:
    """A device's seat in a job whose replies are falsified on the way out."""

    def __init__(self, honest: FleetNode, lie: Lie) -> None:
        self._honest = honest
        self._lie = lie

    def receive(self, timeout_s: float) -> tuple[TrainInstruction, Any] | None:
        """Return the next instruction."""
        return self._honest.receive(timeout_s)

    def fetch_model(self, sha256: str) -> bytes | bytearray:
        """Return the global model's bytes."""
        return self._honest.fetch_model(sha256)

    def reply(self, handle: Any, header: TrainReply, payload: bytes) -> object:
        """Send another update than the one trained, from the attack's round on."""
        if header.error is None and header.round >= self._lie.from_round:
            header, payload = falsify(header, payload, self._lie)
        return self._honest.reply(handle, header, payload)

    def close(self) -> None:
        """Leave the job."""
        self._honest.close()


def falsify(header: TrainReply, payload: bytes, lie: Lie) -> tuple[TrainReply, bytes]:
    """Return a reply with the attack's update in place of its own, packed in the same way.

    What cannot be packed (values that are not finite) is sent as bytes of ones: no number, in each of the packings.
    """
    update = unpack(payload, header.n_parameters, header.packing)
    false = falsified(update, lie.attack, (lie.seed, header.round, lie.device))
    try:
        data = pack(false, header.packing)
    except ValueError:
        data = b"\xff" * len(payload)
    digest = hashlib.sha256(data).hexdigest()
    return msgspec.structs.replace(header, update_bytes=len(data), update_sha256=digest), data


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trainer, lying."""
    given = list(sys.argv[1:] if argv is None else argv)
    lie = read_lie(given[:N_WORDS])

    def connect(home: AgentHome, config: AgentConfig, job_id: str) -> FleetNode:
        return LyingNode(connect_flower(home, config, job_id), lie)

    return train(given[N_WORDS:], connect)


if __name__ == "__main__":
    raise SystemExit(main())
