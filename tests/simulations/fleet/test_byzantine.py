"""Trainers that lie send what the simulated ones would, and only agents started for it have them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from tests.support.simulation_scenarios import scenario

from hedgerow.edge_agent.trainer import supervisor
from hedgerow.shared.errors import ConfigError, UpdateRejectedError
from hedgerow.shared.job import Packing, TrainInstruction, TrainReply
from hedgerow.shared.packing import pack, packed_bytes, unpack
from hedgerow.simulations.engine.protocol import Attack
from hedgerow.simulations.fleet import byzantine_agent
from hedgerow.simulations.fleet.byzantine_trainer import Lie, LyingNode, falsify, read_lie
from hedgerow.simulations.fleet.launch import BYZANTINE, launcher
from hedgerow.simulations.processes.workplace import HEDGEROW
from hedgerow.simulations.run.world import World

N = 5000
UPDATE = np.random.default_rng(3).standard_normal(N, np.float32)
PACKINGS = get_args(Packing)


def header_of(
    payload: bytes, packing: Packing = "float32", round: int = 5, error: str | None = None
) -> TrainReply:
    digest = hashlib.sha256(payload).hexdigest()
    return TrainReply("job", round, 0, N, packing, len(payload), digest, n_samples=9, error=error)


def lie(kind: Any, scale: float = 2.0, from_round: int = 1) -> Lie:
    return Lie(Attack(kind, scale), from_round, 7, 3)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(("kind", "factor"), [("sign-flip", -2.0), ("scale", 2.0)])
def test_a_falsified_update_is_packed_and_hashed_as_an_honest_one(
    packing: Packing, kind: str, factor: float
) -> None:
    payload = pack(UPDATE, packing, np.random.default_rng(1))
    header, data = falsify(header_of(payload, packing), payload, lie(kind))

    assert (header.update_bytes, header.update_sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(data) == packed_bytes(N, packing)
    sent = unpack(data, N, packing)
    # int8 is rounded twice, each time by less than a step of its block.
    step = 3 * np.abs(UPDATE).max() * abs(factor) / 127 if packing == "int8" else 2e-2
    np.testing.assert_allclose(sent, factor * UPDATE, atol=step)


def test_noise_has_the_updates_norm_times_the_scale_and_its_own_draw_each_round() -> None:
    payload = pack(UPDATE, "float32")
    sent = [
        unpack(falsify(header_of(payload, round=r), payload, lie("noise"))[1], N, "float32")
        for r in (5, 5, 6)
    ]

    np.testing.assert_array_equal(sent[0], sent[1])
    assert not np.array_equal(sent[0], sent[2])
    assert np.linalg.norm(sent[0]) == pytest.approx(2 * np.linalg.norm(UPDATE), rel=0.05)
    assert abs(np.corrcoef(sent[0], UPDATE)[0, 1]) < 0.08


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_is_not_a_number_reaches_the_server_as_such(packing: Packing) -> None:
    payload = pack(UPDATE, packing)
    header, data = falsify(header_of(payload, packing), payload, lie("nan"))

    assert header.update_sha256 == hashlib.sha256(data).hexdigest()
    assert len(data) == len(payload)
    try:
        assert not np.isfinite(unpack(data, N, packing)).any()
    except UpdateRejectedError as error:
        assert error.reason == "non-finite"


class Seat:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[TrainReply, bytes]] = []
        self.closed = False

    def receive(self, timeout_s: float) -> tuple[TrainInstruction, Any] | None:
        del timeout_s
        return None

    def fetch_model(self, sha256: str) -> bytes:
        return sha256.encode()

    def reply(self, handle: Any, header: TrainReply, payload: bytes) -> object:
        del handle
        self.sent.append((header, payload))
        return None

    def close(self) -> None:
        self.closed = True


def test_it_lies_from_its_round_on_and_never_about_an_error() -> None:
    seat, payload = Seat(), pack(UPDATE, "float32")
    node = LyingNode(seat, lie("sign-flip", 1.0, from_round=5))
    for round in (4, 5):
        node.reply(None, header_of(payload, round=round), payload)
    node.reply(None, header_of(b"", error="no-samples"), b"")

    assert seat.sent[0][1] == payload
    np.testing.assert_array_equal(unpack(seat.sent[1][1], N, "float32"), -UPDATE)
    assert seat.sent[2] == (header_of(b"", error="no-samples"), b"")
    assert node.receive(0.0) is None
    assert node.fetch_model("ab") == b"ab"
    node.close()
    assert seat.closed


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("sign-flip",),
        ("praise", "1", "1", "1", "1"),
        ("scale", "much", "1", "1", "1"),
        ("nan", "1", "x", "1", "1"),
    ],
)
def test_wrong_words_are_named(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="expected KIND SCALE FROM_ROUND SEED DEVICE"):
        read_lie(words)


def test_the_launchers_words_are_the_trainers() -> None:
    made = scenario(seed=11, faults__byzantine={"kind": "noise", "scale": 2.5, "share": 0.3, "from_round": 4})
    world = World(made, np.zeros(10, np.int64))
    launch = launcher(made, world, {"CLOCK": "1"})

    for device in range(10):
        found = launch(device)
        assert found.environment == {"CLOCK": "1"}
        if not world.byzantine[device]:
            assert tuple(found.command) == HEDGEROW
            continue
        assert list(found.command)[1:3] == ["-m", BYZANTINE]
        assert read_lie(list(found.command)[3:]) == Lie(Attack("noise", 2.5), 4, 11, device)


def test_whoever_lies_by_its_data_runs_the_shipped_agent() -> None:
    made = scenario(faults__byzantine={"kind": "label-flip", "share": 1.0})
    world = World(made, np.zeros(10, np.int64))

    assert {tuple(launcher(made, world, {})(device).command) for device in range(10)} == {HEDGEROW}


def test_the_agent_runs_the_real_command_with_lying_trainers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard: list[tuple[list[str], list[str]]] = []

    def hedgerow(command: list[str]) -> int:
        heard.append((command, supervisor.trainer_command(tmp_path, "job-1")))
        return 5

    monkeypatch.setattr(supervisor, "trainer_command", supervisor.trainer_command)
    monkeypatch.setattr(byzantine_agent, "hedgerow", hedgerow)
    words = ["scale", "3.0", "2", "7", "1"]

    assert byzantine_agent.main([*words, "agent", "run", "--home", str(tmp_path)]) == 5
    ((command, trainer),) = heard
    assert command == ["agent", "run", "--home", str(tmp_path)]
    assert trainer[1:] == ["-m", byzantine_agent.TRAINER, *words, "--home", str(tmp_path), "--job", "job-1"]


def test_attacks_that_scenarios_know_are_all_known_here() -> None:
    kinds = ("sign-flip", "scale", "noise", "nan", "label-flip")

    assert {read_lie((kind, "1", "1", "1", "1")).attack.kind for kind in kinds} == set(kinds)
