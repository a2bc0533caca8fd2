"""A fleet of real processes through what goes wrong: a trainer killed, the server killed and stopped mid-job, a device
shut out, a model taken back; and what leaves the devices during a private job.

One fleet plays the whole story once (``Story``), because trainers are slow to start; the tests look at what it left.
"""

from __future__ import annotations

import http.client
import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from tests.support.configs import CONFIGS
from tests.support.processes import ServerProcess, kill_trainer, trainers_of, until, workplace
from tests.support.recording_server import Recorded, read_recorded
from tests.support.wire import json_fields, reply_headers, statement_fields

from hedgerow.edge_agent.link.tls import device_context
from hedgerow.models.recipes.digits import device_split
from hedgerow.shared.identity import SERVER_NAME
from hedgerow.shared.privacy.statement import recompute_job
from hedgerow.simulations.demo.sensors import write_images
from hedgerow.simulations.processes.broker import Broker
from hedgerow.simulations.processes.fleet import Agent
from hedgerow.simulations.processes.workplace import Workplace

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.xdist_group("fleet"),
    pytest.mark.timeout(400),
]
ROUNDS = 40
DEVICES = ("pump-1", "pump-2")
FINAL = ("delivered", "failed", "cancelled")
JOB = """
name = "{name}"
recipe = "digits-cnn"
rounds = {rounds}
seed = 7

[privacy]
{privacy}

[training]
local_epochs = 1
batch_size = 32
learning_rate = 0.005
optimizer = "adam"

[deadlines]
round_s = {round_s}

[gate]
min_agreement = 0.0
max_metric_drop = 1.0
"""
OPEN = 'mode = "none"'
PRIVATE = 'mode = "example"\nepsilon = 8.0\ndelta = 1e-5'


class Story:
    """What happened, in order."""

    def __init__(self, work: Workplace, server: ServerProcess, broker: Broker) -> None:
        self._work, self.server = work, server
        server.start()
        self.images: dict[str, int] = {}
        self.agents = {name: self._agent(n, name, broker) for n, name in enumerate(DEVICES)}
        self.pids = {name: agent.start() for name, agent in self.agents.items()}
        until(
            "agents connect",
            lambda: all(d["profile"] for d in self._get("devices")) and len(self._get("devices")) == 2,
        )
        self.record = work.folder / "recorded"
        self.first = self._a_job_through_crashes()
        self._two_jobs_a_rollback_and_a_revocation()

    def _a_job_through_crashes(self) -> str:
        job_id = self._submit("digits", ROUNDS, OPEN)
        self._until_round(job_id, 3)
        kill_trainer(self.pids["pump-1"])
        self._until_round(job_id, 12)
        self.before_kill = self._get(f"jobs/{job_id}/rounds")
        self.server.end(signal.SIGKILL)
        self.server.start()
        self.after_kill = self._get(f"jobs/{job_id}/rounds")
        self._until_round(job_id, len(self.after_kill) + 6)
        self.stop_status = self.server.end(signal.SIGTERM)
        # From here on what devices send is written down.
        self.server.start(record_to=self.record)
        self._until_state(job_id, "delivered")
        self._until_serving(1, DEVICES)
        return job_id

    def _two_jobs_a_rollback_and_a_revocation(self) -> None:
        self.private = self._submit("digits", 2, PRIVATE)
        self.long = self._submit("digits-long", 5000, OPEN, round_s=10.0)
        self.states_at_once = {j["job_id"]: j["state"] for j in self._get("jobs")}
        self._until_state(self.private, "delivered")
        self.sent = read_recorded(self.record)
        self._until_serving(2, DEVICES)
        self._work.run("model", "rollback", "digits", "--home", str(self.server.home))
        self._until_serving(1, DEVICES)
        self.after_rollback = {m["version"]: m["aliases"] for m in self._get("models")}
        self._until_round(self.long, 1)
        self._revoke("pump-2")
        self.shut_out_at = len(self._get(f"jobs/{self.long}/rounds"))
        self._until_round(self.long, self.shut_out_at + 4)
        until("rounds are drawn without it", lambda: self._get(f"jobs/{self.long}/rounds")[-1]["drawn"] == 1)
        self.server.client.post(f"jobs/{self.long}/cancel")
        self._until_state(self.long, "cancelled")

    def _revoke(self, device: str) -> None:
        host, _, port = self.server.url.removeprefix("https://").rpartition(":")
        context = device_context(self.agents[device].home.identity_files())
        raw = socket.create_connection((host, int(port)), timeout=20)
        connection = http.client.HTTPConnection(host, int(port))
        connection.sock = context.wrap_socket(raw, server_hostname=SERVER_NAME)
        connection.auto_open = 0
        self.live_before = self._ask(connection)
        self.server.client.post(f"devices/{device}/revoke")
        self.live_after = self._ask(connection)
        connection.close()

    @staticmethod
    def _ask(connection: http.client.HTTPConnection) -> int:
        connection.request("GET", "/v1/device/desired?revision=0&wait_s=0")
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def _agent(self, number: int, name: str, broker: Broker) -> Agent:
        profile = CONFIGS / "profiles" / "pump.toml"
        agent = Agent(self._work, self.server, broker, name, profile)
        images = device_split(len(DEVICES), 10.0, seed=7)[number]
        self.images[name] = len(images.labels)
        agent.ingest(
            "--arrays",
            str(write_images(self._work.folder, name, images.images, images.labels)),
            "--spec",
            "digit",
        )
        return agent

    def _submit(self, name: str, rounds: int, privacy: str, round_s: float = 60.0) -> str:
        toml = JOB.format(name=name, rounds=rounds, privacy=privacy, round_s=round_s)
        return str(self.server.client.post("jobs", {"toml": toml})["job_id"])

    def _get(self, path: str) -> Any:
        return self.server.client.get(path)

    def _until_round(self, job_id: str, number: int) -> None:
        def there() -> bool:
            job = self._get(f"jobs/{job_id}")
            assert job["state"] not in FINAL, job
            return bool(job["round"] >= number)

        until(f"round {number} of {job_id}", there)

    def _until_state(self, job_id: str, state: str) -> None:
        def there() -> bool:
            job = self._get(f"jobs/{job_id}")
            assert job["state"] not in FINAL or job["state"] == state, job
            return bool(job["state"] == state)

        until(f"{job_id} {state}", there)

    def _until_serving(self, version: int, devices: tuple[str, ...]) -> None:
        def there() -> bool:
            return all(
                [(s["reported_version"], s["state"]) for s in d["serving"] if s["model"] == "digits"]
                == [(version, "serving")]
                for d in self._get("devices")
                if d["device"] in devices
            )

        until(f"version {version} serves", there)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("fleet")
    with Broker(folder / "broker") as broker, workplace(folder) as (work, server):
        yield Story(work, server, broker)


@pytest.fixture(scope="module")
def rounds(story: Story) -> list[dict[str, Any]]:
    return list(story.server.client.get(f"jobs/{story.first}/rounds"))


def numbers(rounds: list[dict[str, Any]]) -> list[int]:
    return [one["round"] for one in rounds]


def test_a_killed_server_goes_on_after_its_last_committed_round(
    story: Story, rounds: list[dict[str, Any]]
) -> None:
    seen = len(story.before_kill)
    assert seen < ROUNDS
    assert [r["committed_us"] for r in rounds[:seen]] == [r["committed_us"] for r in story.before_kill]


def test_rounds_follow_each_other_strictly_and_none_is_committed_twice(rounds: list[dict[str, Any]]) -> None:
    assert numbers(rounds) == list(range(1, ROUNDS + 1))
    times = [r["committed_us"] for r in rounds]
    assert times == sorted(set(times))


def test_the_job_killed_over_and_over_delivers_its_model_once(story: Story) -> None:
    versions = [m for m in story.server.client.get("models") if m["job_id"] == story.first]

    assert [m["version"] for m in versions] == [1]
    assert versions[0]["scores"]["accuracy"] > 0.8


def test_stopping_mid_job_ends_in_order_and_the_job_goes_on(story: Story) -> None:
    assert story.stop_status == 0
    assert "Traceback" not in story.server.log.read_text()


def test_a_killed_trainer_costs_its_device_one_round(rounds: list[dict[str, Any]], story: Story) -> None:
    until_server_died = rounds[: len(story.before_kill)]
    short = [r for r in until_server_died if r["replied"] < r["drawn"]]

    assert [r["drawn"] for r in until_server_died] == [2] * len(until_server_died)
    assert [(r["replied"], r["dropped"]) for r in short] == [(1, 1)]


def test_jobs_submitted_at_once_run_one_after_the_other(story: Story) -> None:
    first = story.server.client.get(f"jobs/{story.private}/rounds")
    second = story.server.client.get(f"jobs/{story.long}/rounds")

    assert story.states_at_once[story.long] == "queued"
    assert max(r["committed_us"] for r in first) < min(r["committed_us"] for r in second)


def test_a_rollback_brings_every_device_back_to_the_version_before(story: Story) -> None:
    assert story.after_rollback == {1: ["champion"], 2: ["previous"]}


def test_a_revoked_devices_live_connection_is_refused_at_once(story: Story) -> None:
    assert story.live_before == 200
    assert story.live_after == 403


def test_a_revoked_device_contributes_no_more_and_the_others_go_on(story: Story) -> None:
    done = story.server.client.get(f"jobs/{story.long}/rounds")
    # The round that was under way may still have had its reply; who is drawn is known anew within a second.
    later = [r for r in done if r["round"] > story.shut_out_at + 1]

    assert len(later) >= 2
    assert [r["replied"] for r in later] == [1] * len(later)
    cohort = story.server.client.get(f"jobs/{story.long}/rounds/{later[-1]['round']}/cohort")
    assert cohort["devices"] == ["pump-1"]


def test_a_revoked_device_is_shown_so_and_awaited_by_no_rollout(story: Story) -> None:
    shown = {d["device"]: d["status"] for d in story.server.client.get("devices")}
    newest = story.server.client.get("rollouts")[0]

    assert shown["pump-2"] == "revoked"
    assert sum(newest["devices"].values()) == 1


def test_trainers_are_gone_after_their_job(story: Story) -> None:
    until("trainers end", lambda: not any(trainers_of(pid) for pid in story.pids.values()))


def test_only_what_the_egress_statement_names_leaves_in_a_private_job(story: Story) -> None:
    bodies = [one for one in story.sent if one.method == "POST" and one.device in DEVICES]
    known = statement_fields()
    plain = [one for one in bodies if one.path in known]

    assert {"/v1/device/heartbeat"} <= {one.path for one in plain}
    for one in plain:
        assert json_fields(msgspec.json.decode(one.body), known[one.path]) <= known[one.path], one.path


def test_the_probe_would_see_a_field_that_is_not_named() -> None:
    known = statement_fields()["/v1/device/heartbeat"]
    leaking = {"device": "pump-1", "state": {"revision": 1, "loss": 0.1}, "samples": [{"n": 1}]}

    assert json_fields(leaking, known) - known == {"state.loss", "samples[].n"}


def test_requests_carry_nothing_in_address_or_headers(story: Story) -> None:
    words = {name for one in story.sent if one.device in DEVICES for name in one.headers}

    assert words <= {
        "host", "accept-encoding", "content-length", "content-type", "connection", "user-agent", "accept", "range",
        "hedgerow-job", "hedgerow-activation", "hedgerow-message", "flwr-public-key", "flwr-signature", "flwr-timestamp",
    }  # fmt: skip
    asked = {name for one in story.sent for name in httpx.QueryParams(one.query)}
    assert asked <= {"revision", "wait_s", "received"}


def test_private_replies_withhold_counts_and_losses(story: Story) -> None:
    private = [h for one in story.sent for h in reply_headers(one) if h["job_id"] == story.private]

    assert len(private) >= 2 * len(DEVICES)
    for header in private:
        assert set(header) <= statement_fields()["TrainReply"]
        assert header["error"] is None
        assert header["n_samples"] is None
        assert header["metrics"] == {}
        assert not set(story.images.values()) & {v for v in header.values() if isinstance(v, int)}


def test_the_rounds_show_epsilon_as_it_grew_to_what_the_devices_ledgers_hold(story: Story) -> None:
    curve = [one["epsilon"] for one in story.server.client.get(f"jobs/{story.private}/rounds")]
    held = [recompute_job(agent.home.ledger, story.private).epsilon_pld for agent in story.agents.values()]

    assert curve[0] < curve[1] <= 8.0
    assert max(held) <= curve[1] <= 1.01 * max(held)


def test_replies_without_privacy_do_carry_them(story: Story) -> None:
    """The probe sees what it looks for: the same reading of an open job's replies finds the counts."""
    opened = [h for one in story.sent for h in reply_headers(one) if h["job_id"] == story.first]

    assert {h["n_samples"] for h in opened} == set(story.images.values())
    assert all(h["metrics"] for h in opened)


def test_what_devices_sent_was_read_by_path(story: Story) -> None:
    known = {*statement_fields(), "/v1/device/round/reply"}

    def is_known(one: Recorded) -> bool:
        return one.path in known or one.path.startswith("/v1/fleet/")

    assert not [one.path for one in story.sent if one.method != "GET" and not is_known(one)]
