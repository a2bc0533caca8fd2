"""The demo step by step: start, sense, train, ship, break a machine, look everywhere, judge."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.config import to_toml
from hedgerow.edge_agent.samples.store import SampleStore
from hedgerow.models.pump.faults import DEFAULT_FAULT
from hedgerow.models.recipes.digits import device_split
from hedgerow.shared.errors import TransportError
from hedgerow.shared.job import Job
from hedgerow.shared.privacy.statement import recompute_job
from hedgerow.shared.profile import WindowSpec
from hedgerow.simulations.bench.row_metrics import RowCounts, count_rows
from hedgerow.simulations.demo.comparing import beside, held_out_us
from hedgerow.simulations.demo.detection import (
    Detection,
    Heard,
    Planted,
    judge,
    judge_baseline,
    read_alarms,
    rows_in_alarm,
)
from hedgerow.simulations.demo.looking import Lookout
from hedgerow.simulations.demo.result import DemoResult, DeviceResult, JobResult, LabelledResult
from hedgerow.simulations.demo.scene import Scene
from hedgerow.simulations.demo.sensors import (
    Publisher,
    RecordedSensor,
    SimulatedSensor,
    row_of,
    write_images,
)
from hedgerow.simulations.processes.broker import Broker
from hedgerow.simulations.processes.fleet import Agent, Server, in_parallel, wait_for
from hedgerow.simulations.processes.workplace import Workplace

QUIET_ROWS: Final = 400
FAULT_ROWS: Final = 120
FAULTY: Final = 3
DIGITS_ALPHA: Final = 1.0
FINAL: Final = frozenset({"delivered", "failed", "cancelled"})


class Demo:
    """One run. ``say`` gets progress in words; ``run`` returns the result and leaves the processes to ``work``."""

    def __init__(self, scene: Scene, work: Workplace, broker: Broker, say: Callable[[str], None]) -> None:
        self._scene = scene
        self._work = work
        self._broker = broker
        self._say = say
        self._started_s = time.monotonic()
        self._shortfalls: list[str] = []
        self._publisher = Publisher(broker.host, broker.port)
        self._publisher.listen("hedgerow/v1/+/up/#")
        self.server = Server(work)
        self.server.start()
        self._agents: dict[str, Agent] = {}

    def run(self) -> DemoResult:
        """Play the scene. Raises TransportError or ConfigError if a step cannot be done at all."""
        scene = self._scene
        self._say(f"server at {self.server.url}, broker {self._broker.kind} at {self._broker.url}")
        self._join()
        self._sense(scene.training_rows)
        self._say(
            f"{scene.training_rows} rows a device are in: {self._windows()} windows, kept on their devices"
        )
        jobs = [self._train(job) for job in scene.jobs]
        planted, replay_row = self._replay()
        alarms = read_alarms(self._publisher.heard, replay_row)
        alarm, missing = (None, []) if planted is None else self._lookout().find(planted, alarms, jobs[0])
        self._shortfalls += missing
        detection = self._judge(planted, alarms, replay_row)
        devices = [self._device(agent, jobs[0]) for agent in self._agents.values()]
        compared = [
            self._compare(job, result, held_out_us(scene, replay_row) if scene.recorded and n == 0 else ())
            for n, (job, result) in enumerate(zip(scene.jobs, jobs, strict=True))
        ]
        return DemoResult(
            success=not self._shortfalls,
            seconds=time.monotonic() - self._started_s,
            source=scene.source,
            broker=self._broker.kind,
            jobs=tuple(compared),
            devices=tuple(devices),
            detection=detection,
            planted=planted,
            alarm=alarm,
            labelled=self._labelled(alarms, replay_row) if scene.recorded else None,
            shortfalls=tuple(self._shortfalls),
            dashboard=self.server.dashboard,
        )

    def close(self) -> None:
        """Leave the broker."""
        self._publisher.close()

    def _join(self) -> None:
        images = device_split(len(self._scene.texts), DIGITS_ALPHA, seed=7)
        texts = list(self._scene.texts.items())

        def one(number: int) -> Agent:
            """Let one device join, with images of its own, and start its agent."""
            device, text = texts[number]
            profile = self._work.folder / f"{device}.toml"
            profile.write_text(text, encoding="utf-8")
            agent = Agent(self._work, self.server, self._broker, device, profile)
            archive = write_images(self._work.folder, device, images[number].images, images[number].labels)
            agent.ingest("--arrays", str(archive), "--spec", "digit")
            agent.start()
            return agent

        self._agents = {agent.device: agent for agent in in_parallel(one, len(texts))}
        wait_for(self._work, "agents connect", self._all_ready, 60.0)
        self._say(
            f"{len(self._agents)} devices joined, each with a one-use token and a certificate of its own"
        )

    def _all_ready(self) -> bool:
        online = {
            d["device"] for d in self.server.client.get("devices") if d["status"] == "online" and d["profile"]
        }
        return online == set(self._agents) and all(
            a.status()["broker_connected"] for a in self._agents.values()
        )

    def _sense(self, rows: int) -> None:
        """Publish the next rows of every machine, and return when every device has stored the windows of all."""
        for device, sensor in self._scene.sensors.items():
            first = sensor.row
            self._publisher.publish(self._scene.profile_of(device), device, first, sensor.rows(rows))
        window = self._scene.profile.window

        def stored() -> bool:
            """Tell whether every device holds the windows of all that was published."""
            return all(
                agent.status()["samples"].get(window.name, 0)
                >= _windows(self._scene.sensors[device].row, window)
                for device, agent in self._agents.items()
            )

        wait_for(self._work, "devices store their windows", stored, 120.0)

    def _windows(self) -> int:
        return sum(
            agent.status()["samples"].get(self._scene.profile.window.name, 0)
            for agent in self._agents.values()
        )

    def _train(self, job: Job) -> JobResult:
        started = time.monotonic()
        job_id = self.server.client.post("jobs", {"toml": job_toml(job)})["job_id"]
        self._say(f"job {job.name}: {_promise(job)}; trainers start on the devices")
        seen, state = self._follow(job_id), self.server.client.get(f"jobs/{job_id}")
        if state["state"] != "delivered":
            raise TransportError(f"job {job.name} {state['state']}: {state['reason']}")
        version, model = state["model_version"], state["model"]
        wait_for(
            self._work,
            f"all devices serve {model}",
            lambda: self._serving(model, version) == len(self._agents),
            60.0,
        )
        found = next(
            m for m in self.server.client.get("models") if (m["model"], m["version"]) == (model, version)
        )
        self._say(f"{model} version {version} is signed, verified on {len(self._agents)} devices and serves")
        count = len(self._agents)
        return JobResult(
            job_id=job_id, name=job.name, mode=job.privacy.mode, rounds=len(seen), seconds=time.monotonic() - started,
            metric=state["metric"], untrained=0.0, local_only=0.0, federated=seen[-1]["scores"].get(state["metric"], 0.0),
            pooled=0.0, bytes_up_per_device=sum(r["bytes_up"] for r in seen) / count,
            bytes_down_per_device=sum(r["bytes_down"] for r in seen) / count, model=model, version=version,
            manifest_sha256=found["manifest_sha256"], serving=count, artefacts=_artefacts(found),
        )  # fmt: skip

    def _follow(self, job_id: str) -> list[dict[str, Any]]:
        """Tell each round once its score is known, or a later one's is: scoring skips rounds that come too fast."""
        told = 0
        client = self.server.client
        for _topics in client.news():
            self._work.check()
            job, rounds = client.get(f"jobs/{job_id}"), client.get(f"jobs/{job_id}/rounds")
            over = job["state"] in FINAL
            scored = max((n + 1 for n, one in enumerate(rounds) if one["scores"]), default=0)
            for one in rounds[told : len(rounds) if over else scored]:
                self._say(_round_line(job, one))
            told = max(told, len(rounds) if over else scored)
            if over:
                return list(rounds)
        raise TransportError("the server closed its event stream")

    def _serving(self, model: str, version: int) -> int:
        return sum(
            serving["model"] == model
            and serving["reported_version"] == version
            and serving["state"] == "serving"
            for device in self.server.client.get("devices")
            for serving in device["serving"]
        )

    def _replay(self) -> tuple[Planted | None, int]:
        """Let the machines run on; in a simulation one of them breaks. Return the fault and the replay's first row."""
        first = min(sensor.row for sensor in self._scene.sensors.values())
        device = list(self._scene.sensors)[FAULTY % len(self._scene.sensors)]
        sensor = self._scene.sensors[device]
        if not isinstance(sensor, SimulatedSensor):
            self._say("the rest of the recordings is replayed; their labels stay here")
            self._sense(1_000_000)
            self._settle()
            return None, first
        row = sensor.inject(DEFAULT_FAULT, QUIET_ROWS)
        planted = Planted(device, DEFAULT_FAULT.kind, DEFAULT_FAULT.planted, row)
        self._say(f"the machines run on; in {QUIET_ROWS} rows {device} gets a {planted.kind} fault")
        self._sense(QUIET_ROWS + FAULT_ROWS)
        self._settle()
        return planted, first

    def _settle(self) -> None:
        """Wait until what devices decided has reached the server: their outboxes are empty."""
        wait_for(
            self._work,
            "outboxes empty",
            lambda: all(a.status()["outbox_pending"] == 0 for a in self._agents.values()),
            30.0,
        )

    def _lookout(self) -> Lookout:
        return Lookout(self.server, self._agents, self._scene.profile)

    def _judge(self, planted: Planted | None, alarms: list[Heard], replay_row: int) -> tuple[Detection, ...]:
        devices = {device: self._stored(agent, replay_row) for device, agent in self._agents.items()}
        baseline = judge_baseline(self._scene.profile, devices, planted)
        if planted is None:
            return ()
        model = judge(alarms, planted, self._scene.profile, baseline.windows)
        noisy = sorted({a.device for a in alarms if a.device != planted.device})
        if noisy:
            self._shortfalls.append(f"alarms on healthy devices: {', '.join(noisy)}")
        return model, baseline

    def _stored(
        self, agent: Agent, replay_row: int
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.int64], int]:
        store = SampleStore(agent.home.samples, max_bytes=0, max_age_s=None, read_only=True)
        try:
            batch = store.read(self._scene.profile.window.name)
        finally:
            store.close()
        return batch.arrays, np.array([row_of(int(us)) for us in batch.end_us], np.int64), replay_row

    def _labelled(self, alarms: list[Heard], replay_row: int) -> LabelledResult:
        counts = RowCounts()
        for device, sensor in self._scene.sensors.items():
            if isinstance(sensor, RecordedSensor):
                truth = sensor.recording.anomaly[replay_row:]
                counts += count_rows(rows_in_alarm(alarms, device, replay_row, len(truth)), truth)
        rates = counts.rates()
        rows = counts.hits + counts.false_alarms + counts.misses + counts.quiet
        return LabelledResult(rows, rates["f1"], rates["far_percent"] / 100, rates["mar_percent"] / 100)

    def _compare(self, job: Job, result: JobResult, held_out: tuple[tuple[int, ...], ...]) -> JobResult:
        self._say(f"{job.name}: training the same model untrained, alone and pooled, to compare")
        compared = beside(job, result, [agent.home.path for agent in self._agents.values()], held_out)
        if not compared.federated > compared.untrained:  # NaN beats nothing
            scores = f"{compared.federated:.3f} does not beat untrained {compared.untrained:.3f}"
            self._shortfalls.append(f"{job.name}: federated {compared.metric} {scores}")
        return compared

    def _device(self, agent: Agent, job: JobResult) -> DeviceResult:
        status = agent.status()
        spent = recompute_job(agent.home.ledger, job.job_id)
        allowed = 1 / (10 * spent.n)
        if spent.epsilon_pld > spent.epsilon_asked or spent.delta > allowed:
            self._shortfalls.append(f"{agent.device} spent ε {spent.epsilon_pld:.3g} at δ {spent.delta:.2g}")
        served: dict[str, str] = next(
            (b for b in status["bundles"] if b["manifest_sha256"] == job.manifest_sha256), {}
        )
        return DeviceResult(
            device=agent.device, epsilon=spent.epsilon_pld, delta=spent.delta, delta_allowed=allowed, steps=spent.steps,
            runtime=served.get("runtime", ""), precision=served.get("precision", ""), pss_bytes=status["pss_bytes"],
            link_up_bytes=status["server"]["bytes_up"], link_down_bytes=status["server"]["bytes_down"],
        )  # fmt: skip


def job_toml(job: Job) -> str:
    """Return a job as the TOML that a person would submit."""
    table = msgspec.to_builtins(job)
    return to_toml(_without_none(table))


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    inner = {key: _without_none(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: value for key, value in inner.items() if value is not None and value != {}}


def _windows(rows: int, window: WindowSpec) -> int:
    return max(0, (rows - window.length) // window.stride + 1)


def _promise(job: Job) -> str:
    if job.privacy.mode == "none":
        return f"{job.rounds} rounds without privacy (ε = ∞)"
    return f"{job.rounds} rounds, ε ≤ {job.privacy.epsilon:g} and δ ≤ {job.privacy.delta:g} per window of a device"


def _round_line(job: dict[str, Any], one: dict[str, Any]) -> str:
    score = one["scores"].get(job["metric"])
    parts = [
        f"round {one['round']}/{job['rounds']}",
        f"{one['replied']}/{one['drawn']} devices",
        f"{(one['bytes_up'] + one['bytes_down']) / 1000:.0f} kB",
        f"{one['duration_s']:.1f} s",
    ]
    if score is not None:
        parts.append(f"{job['metric']} {score:.3f}")
    if one["epsilon"] is not None:
        parts.append(f"ε {one['epsilon']:.2f} of {job['epsilon_asked']:g}")
    return "  " + ", ".join(parts)


def _artefacts(model: dict[str, Any]) -> dict[str, dict[str, float]]:
    found = {}
    for _file, runtime, precision, size_bytes in model["artefacts"]:
        prefix = f"{runtime}.{precision}"
        latency = model["scores"].get(f"{prefix}.latency_p50_us", 0.0)
        found[prefix] = {"size_bytes": float(size_bytes), "latency_p50_us": float(latency)}
    return found
