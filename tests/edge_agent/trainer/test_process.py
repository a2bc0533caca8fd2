"""The trainer as a process: real torch, real TLS to a real gateway, killed and started again by the real supervisor."""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.support.round_parts import settle

from hedgerow.edge_agent.config import AgentConfig, TrainerConfig, write_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.edge_agent.trainer.exits import Exit
from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.edge_agent.trainer.supervisor import TrainerSupervisor, trainer_command
from hedgerow.models.recipe import recipe_hash
from hedgerow.models.recipes import digits
from hedgerow.server.flower import FlowerLink
from hedgerow.server.rounds.link import Reply
from hedgerow.shared.bundle import sha256_hex
from hedgerow.shared.job import PrivacySpec, TrainingSpec, TrainInstruction
from hedgerow.shared.packing import unpack
from hedgerow.shared.privacy.ledger_file import verify
from hedgerow.shared.privacy.statement import recompute_job
from hedgerow.shared.specs import Sample
from hedgerow.simulations.bench.bed import Bed

RECIPE = digits.RECIPE
JOB = "digits-1"
DEVICE = "cam-1"
START_S = 60.0


def make_home(folder: Path, url: str, identity: Path | None = None, n: int = 80) -> AgentHome:
    home = AgentHome(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(home.config, AgentConfig(url, DEVICE, trainer=TrainerConfig(nice=1)))
    if identity is not None:
        shutil.copytree(identity, home.identity)
    held = digits.device_split(5, 10.0, 3)[0]
    store = SampleStore(home.samples, max_bytes=10**8, max_age_s=None)
    store.add(
        [
            Sample("digit", image, t, t, "raw", label=int(label))
            for t, (image, label) in enumerate(zip(held.images[:n], held.labels[:n], strict=True))
        ]
    )
    store.close()
    return home


def initial_model() -> bytes:
    import torch

    torch.manual_seed(1)
    module = RECIPE.build({})
    flat = torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    return flat.astype("<f4").tobytes()


def instruction(number: int, model: bytes, privacy: PrivacySpec) -> TrainInstruction:
    return TrainInstruction(
        job_id=JOB,
        round=number,
        exchange=0,
        recipe=RECIPE.name,
        recipe_hash=recipe_hash(RECIPE),
        parameters={},
        privacy=privacy,
        training=TrainingSpec(batch_size=16, learning_rate=0.1),
        packing="int8",
        rounds=4,
        n_parameters=len(model) // 4,
        model_sha256=sha256_hex(model),
        deadline_s=60.0,
    )


class Round:
    """Asks one device over the link and takes its answer."""

    def __init__(self, link: FlowerLink, model: bytes, privacy: PrivacySpec) -> None:
        self.link, self.model, self.privacy = link, model, privacy
        link.publish_model(JOB, memoryview(model))

    async def ask(self, number: int) -> str:
        return await self.link.send(JOB, DEVICE, instruction(number, self.model, self.privacy))

    async def taken(self) -> tuple[Reply, bytes]:
        reply = await self.link.next_reply(JOB, START_S)
        assert reply is not None
        payload = b"".join(reply.payload)
        await self.link.release(reply)
        return reply, payload

    async def answer(self, number: int) -> tuple[Reply, bytes]:
        await self.ask(number)
        return await self.taken()


@pytest.mark.slow
@pytest.mark.system
def test_rounds_are_answered_under_the_budget_though_the_trainer_is_killed_in_between(tmp_path: Path) -> None:
    privacy = PrivacySpec("example", 6.0, 1e-4)
    exits: queue.Queue[tuple[str, int]] = queue.Queue()

    async def scenario() -> list[tuple[Reply, bytes]]:
        bed = Bed(tmp_path / "bed")
        identity = bed.identity(DEVICE).key.parent
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            link.publish_model(JOB, memoryview(initial_model()))
            home = make_home(tmp_path / "agent", url, identity)
            supervisor = TrainerSupervisor(home.path, lambda job, code: exits.put((job, code)))
            supervisor.start()
            try:
                supervisor.want({JOB})
                assert await link.wait_online(JOB, 1, START_S)
                server = Round(link, initial_model(), privacy)
                answers = [await server.answer(1)]
                await server.ask(2)
                os.kill(supervisor.running()[JOB], signal.SIGKILL)
                assert await asyncio.to_thread(exits.get, True, START_S) == (JOB, -signal.SIGKILL)
                link.trainer_exited(DEVICE, JOB)
                answers.append(await server.taken())
                await settle(lambda: bool(supervisor.running()), START_S)
                assert await link.wait_online(JOB, 1, START_S)
                answers += [await server.answer(3), await server.answer(1)]
                supervisor.want(set())
                await settle(lambda: not supervisor.running(), START_S)
            finally:
                await asyncio.to_thread(supervisor.stop, 5.0)
            return answers

    first, _, third, stale = asyncio.run(scenario())

    size = len(initial_model()) // 4
    for reply, payload in (first, third):
        assert reply.header is not None
        assert reply.header.error is None
        assert (reply.header.n_samples, reply.header.metrics) == (None, {})
        assert np.abs(unpack(payload, size, "int8")).max() > 0
    assert stale[0].header is not None
    assert stale[0].header.error == "declined-budget"
    found = recompute_job(tmp_path / "agent" / "ledger.db", JOB)
    assert found.within_budget
    assert found.rounds_released in (2, 3)
    assert found.steps <= found.planned_steps
    assert exits.empty()


@pytest.mark.slow
@pytest.mark.system
def test_a_trainer_ends_with_its_agent_and_leaves_the_job(tmp_path: Path) -> None:
    async def scenario() -> int:
        bed = Bed(tmp_path / "bed")
        identity = bed.identity(DEVICE).key.parent
        async with bed.serve() as (link, url):
            await link.open_job(JOB)
            home = make_home(tmp_path / "agent", url, identity)
            process = subprocess.Popen(trainer_command(home.path, JOB), stdin=subprocess.PIPE)
            assert await link.wait_online(JOB, 1, START_S)
            server = Round(link, initial_model(), PrivacySpec("none"))
            reply, _ = await server.answer(1)
            assert reply.header is not None
            assert reply.header.n_samples == 80

            assert process.stdin is not None
            process.stdin.close()
            code = await asyncio.to_thread(process.wait, START_S)
            assert link.online(JOB) == frozenset()
            return code

    assert asyncio.run(scenario()) == Exit.STOPPED


def run_trainer(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        trainer_command(home, JOB),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.slow
@pytest.mark.system
def test_each_end_that_a_person_must_mend_has_its_code_and_says_what_is_wrong(tmp_path: Path) -> None:
    missing = run_trainer(tmp_path / "nowhere")
    assert missing.returncode == Exit.CONFIG
    assert "agent.toml" in missing.stderr

    home = make_home(tmp_path / "agent", "https://127.0.0.1:1")
    DeviceLedger(home.ledger).close()
    home.ledger.write_bytes(b"scribble" * 1000)
    damaged = run_trainer(home.path)
    assert damaged.returncode == Exit.LEDGER
    assert "ledger" in damaged.stderr

    other_device = msgspec.structs.replace(
        AgentConfig("https://127.0.0.1:1", DEVICE), trainer=TrainerConfig(device="cuda")
    )
    write_config(home.config, other_device)
    assert run_trainer(home.path).returncode == Exit.CONFIG


def test_wrong_arguments_are_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hedgerow.edge_agent.trainer"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == Exit.USAGE
    assert "--home" in done.stderr


def test_the_ledger_of_a_fresh_home_is_empty_and_sound(tmp_path: Path) -> None:
    home = make_home(tmp_path / "agent", "https://127.0.0.1:1", n=1)
    DeviceLedger(home.ledger).close()

    assert verify(home.ledger).length == 0
