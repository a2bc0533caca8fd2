"""A centrally protected job over real processes: the server killed mid-job, what devices send, what is shown and refused.

One fleet plays the story once; the tests look at what it left.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.support.configs import CONFIGS
from tests.support.processes import ServerProcess, until, workplace
from tests.support.recording_server import read_recorded
from tests.support.wire import reply_headers

from hedgerow.models.recipes.digits import device_split
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.packing import packed_bytes
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.events import CentralRounds
from hedgerow.shared.privacy.ledger_file import verify
from hedgerow.simulations.demo.sensors import write_images
from hedgerow.simulations.processes.broker import Broker
from hedgerow.simulations.processes.fleet import Agent
from hedgerow.simulations.processes.workplace import Workplace

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.xdist_group("fleet"),
    pytest.mark.timeout(300),
]
DEVICES = ("pump-1", "pump-2")
ROUNDS, RATE, NOISE, DELTA = 12, 0.8, 3.0, 1e-2
JOB = f"""
name = "digits"
recipe = "digits-cnn"
rounds = {ROUNDS}
packing = "int8"

[privacy]
mode = "central-poisson"
noise_multiplier = {NOISE}
delta = {DELTA}
clip_norm_l2 = 0.02

[cohort]
rule = "poisson"
rate = {RATE}

[training]
batch_size = 32
learning_rate = 0.005
optimizer = "adam"

[gate]
min_agreement = 0.0
max_metric_drop = 1.0
"""


class Story:
    """What happened, in order: a job through a kill of its server, delivered; the same job once more, refused."""

    def __init__(self, work: Workplace, server: ServerProcess, broker: Broker) -> None:
        self.server = server
        self.record = work.folder / "recorded"
        server.start(record_to=self.record)
        profile = CONFIGS / "profiles" / "pump.toml"
        self.agents = {name: Agent(work, server, broker, name, profile) for name in DEVICES}
        for number, (name, agent) in enumerate(self.agents.items()):
            images = device_split(len(DEVICES), 10.0, seed=7)[number]
            folder = write_images(work.folder, name, images.images, images.labels)
            agent.ingest("--arrays", str(folder), "--spec", "digit")
            agent.start()
        until(
            "agents connect",
            lambda: [bool(d["profile"]) for d in server.client.get("devices")] == [True, True],
        )
        self.job = str(server.client.post("jobs", {"toml": JOB})["job_id"])
        until("some rounds", lambda: server.client.get(f"jobs/{self.job}")["round"] >= 3)
        server.end(signal.SIGKILL)
        self.at_kill = self.ask("select round, state, epsilon from privacy_charges order by round")
        self.drawn_at_kill = self.ask("select round, cohort from rounds order by round")
        server.start(record_to=self.record)
        until("delivered", self._delivered)
        self.sent = read_recorded(self.record)

    def _delivered(self) -> bool:
        job = self.server.client.get(f"jobs/{self.job}")
        assert job["state"] not in ("failed", "cancelled"), job
        return bool(job["state"] == "delivered")

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.server.home / "hedgerow.db")) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("central")
    with Broker(folder / "broker") as broker, workplace(folder) as (work, server):
        yield Story(work, server, broker)


def test_every_round_is_charged_once_over_the_kill_and_what_was_drawn_stays_drawn(story: Story) -> None:
    charges = story.ask("select round, state, epsilon from privacy_charges order by round")

    assert [row[:2] for row in charges] == [(n, "charged") for n in range(1, ROUNDS + 1)]
    kept = [row for row in story.at_kill if row[1] == "charged"]
    assert 3 <= len(kept) < ROUNDS
    assert charges[: len(kept)] == kept
    assert (
        story.ask("select round, cohort from rounds order by round")[: len(story.drawn_at_kill)]
        == story.drawn_at_kill
    )
    assert [row[2] for row in charges] == pytest.approx(
        [epsilon([CentralRounds(RATE, NOISE, n)], DELTA) for n in range(1, ROUNDS + 1)], rel=2e-3
    )


def test_updates_of_real_trainers_count_and_none_is_refused(story: Story) -> None:
    outcomes = dict(story.ask("select outcome, count(*) from contributions group by outcome"))

    # 24 coins of 0.8: σ 2; the kill may cost a round its replies.
    assert outcomes["counted"] >= 6
    assert set(outcomes) <= {"counted", "missing", "declined"}


def test_devices_send_an_update_and_nothing_beside_it(story: Story) -> None:
    headers = [h for one in story.sent for h in reply_headers(one) if h["job_id"] == story.job]

    assert len(headers) >= 6
    for header in headers:
        assert header["error"] is None
        assert (header["n_samples"], header["metrics"], header["epsilon"]) == (None, {}, None)
        assert header["update_bytes"] == packed_bytes(header["n_parameters"], "int8")


def test_views_show_epsilon_and_withhold_every_count(story: Story) -> None:
    rounds = story.server.client.get(f"jobs/{story.job}/rounds")

    assert [one["round"] for one in rounds] == list(range(1, ROUNDS + 1))
    curve = [one["epsilon"] for one in rounds]
    assert curve == sorted(set(curve))
    for one in rounds:
        counts = [one[name] for name in ("drawn", "replied", "rejected", "dropped", "bytes_up", "bytes_down")]
        assert (counts, one["reasons"]) == ([None] * 6, {})


def test_an_admin_can_see_who_was_drawn_and_it_is_audited(story: Story) -> None:
    drawn = story.server.client.get(f"jobs/{story.job}/rounds/1/cohort")["devices"]

    assert set(drawn) <= set(DEVICES)
    assert story.ask("select count(*) from audit where action = 'cohort.read'") == [(1,)]


def test_the_model_carries_what_was_charged(story: Story) -> None:
    (model,) = [m for m in story.server.client.get("models") if m["job_id"] == story.job]
    job = story.server.client.get(f"jobs/{story.job}")

    assert model["privacy_mode"] == "central-poisson"
    assert model["epsilon"] == job["epsilon"] == story.ask("select max(epsilon) from privacy_charges")[0][0]
    assert model["delta"] == DELTA


@pytest.mark.parametrize("device", DEVICES)
def test_the_devices_ledger_says_that_the_server_saw_its_updates(story: Story, device: str) -> None:
    noted = verify(story.agents[device].home.ledger).state.unprotected.get(story.job)

    if noted is None:  # never drawn, or not trained: 0.2^12
        assert not story.ask(f"select 1 from contributions where device = '{device}' and outcome = 'counted'")
    else:
        assert noted.protected_by == "central-poisson"


def test_a_job_over_the_budget_of_these_devices_is_refused_with_the_reason(story: Story) -> None:
    greedy = JOB.replace(f"noise_multiplier = {NOISE}", "noise_multiplier = 0.7")

    with pytest.raises(ConfigError, match="over their budget of 10"):
        story.server.client.post("jobs", {"toml": greedy})
    assert len(story.server.client.get("jobs")) == 1
