"""The agent: its parts put together, started in order, stopped in reverse. One small process that never trains.

Order matters: what was installed serves before the first reading comes, telemetry flows before the server is asked.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.alarms import AlarmTracker
from hedgerow.edge_agent.clock import LastKnownTime
from hedgerow.edge_agent.config import AgentConfig, read_config
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.inference.engine import Engine
from hedgerow.edge_agent.install import Installer
from hedgerow.edge_agent.link.link import Link
from hedgerow.edge_agent.link.renewal import Renewal
from hedgerow.edge_agent.link.traffic import Traffic
from hedgerow.edge_agent.local_api.server import LocalApi
from hedgerow.edge_agent.recipes import InstalledRecipes
from hedgerow.edge_agent.storage import open_storage
from hedgerow.edge_agent.telemetry.broker import broker_settings
from hedgerow.edge_agent.telemetry.mqtt import MqttTelemetry
from hedgerow.edge_agent.telemetry.pipeline import Pipeline
from hedgerow.edge_agent.trainer.supervisor import STOP_GRACE_S, TrainerSupervisor
from hedgerow.edge_agent.updater.supervise import UpdaterProcess
from hedgerow.edge_agent.vitals import AgentStatus, Vitals, Watched
from hedgerow.edge_agent.watchdog import Watchdog
from hedgerow.shared.errors import ConfigError, HedgerowError, StorageError
from hedgerow.shared.files import write_atomically
from hedgerow.shared.messages import DesiredState, EventBody, Notice, Severity, TrainerExit
from hedgerow.shared.profile import DeviceProfile, for_device, read_profile
from hedgerow.shared.specs import Sample

log = logging.getLogger(__name__)
STOP_DEADLINE_S = 10.0


class Daemon:
    """The agent of one device. ``start`` then ``stop``; everything between happens in threads of its parts."""

    def __init__(self, home: AgentHome, config: AgentConfig, profile: DeviceProfile) -> None:
        self._home = home
        self._config = config
        self._profile = profile
        self._desired = DesiredState(-1)
        self._alarms = AlarmTracker()
        self._threads: frozenset[str] = frozenset()
        # Parts may have news while later parts are still being made: those two are set once they are there.
        self._publish: Callable[[str, bytes], None] = lambda _topic, _payload: None
        self._report: Callable[[], None] = lambda: None
        self.clock = LastKnownTime(home.clock)
        self.outbox, self.store, opened = open_storage(home, config.outbox, profile.store)
        for notice in opened:
            self._tell("warning", notice)
        for spec in profile.tensor:
            self.store.declare(spec)
        self.engine = Engine(profile, home.path / "inference", self._history)
        self.pipeline = Pipeline(profile, self.store, on_window=self._on_window, on_notice=self._on_notice)
        self.mqtt = MqttTelemetry(broker_settings(config, home), self.pipeline, on_notice=self._on_notice)
        self._publish = self.mqtt.publish
        self._updater = UpdaterProcess(home.path, config.server_url, runtimes=profile.runtimes)
        self.installer = Installer(
            home.slots,
            self.engine,
            self._updater,
            on_change=self._changed,
            on_notice=lambda code, text: self._on_notice(Notice(code, text[:1000])),
        )
        self.supervisor = TrainerSupervisor(home.path, self._trainer_exited)
        self._recipes = InstalledRecipes(self._changed)
        traffic = Traffic()
        self.vitals = Vitals(self._watched(traffic))
        self.link = Link(
            home,
            config,
            self.outbox,
            self.clock,
            heartbeat=self.vitals.heartbeat,
            on_desired=self._on_desired,
            traffic=traffic,
        )
        self._report = self.link.heartbeat_now
        self._renewal = Renewal(home, self._identity_renewed)
        self.api = LocalApi(
            token_file=home.api_token,
            predict=self.engine.predict,
            specs=self.engine.specs,
            status=self.status,
            port=config.api_port,
        )

    def _watched(self, traffic: Traffic) -> Watched:
        return Watched(
            device=self._config.device,
            profile=self._profile,
            home=self._home.path,
            clock=self.clock,
            pipeline=self.pipeline,
            engine=self.engine,
            installer=self.installer,
            outbox=self.outbox,
            supervisor=self.supervisor,
            recipes=self._recipes,
            traffic=traffic,
            connected=lambda: self.mqtt.connected,
            revision=lambda: self._desired.revision,
        )

    def start(self) -> None:
        """Start every part. Raises what a part raises; nothing is left running then by the caller's ``stop``."""
        self.installer.start()
        self.api.start()
        self._note_port()
        self.mqtt.start()
        if self._config.trainer.enabled:
            self.supervisor.start()
            self._recipes.start()
        self.link.start()
        self._renewal.start()
        self._threads = _own_threads() - {"hedgerow-recipes"}
        log.info("agent %s: local API at %s", self._config.device, self.api.url)

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Stop in reverse: no new readings, what is decided is stored, children are ended. One deadline for all."""
        end = time.monotonic() + deadline_s

        def left_s() -> float:
            return max(0.1, end - time.monotonic())

        self._recipes.stop()
        self._updater.stop(min(2.0, left_s()))
        self.mqtt.stop(left_s())
        if self._config.trainer.enabled:
            self.supervisor.stop(min(STOP_GRACE_S, left_s()))
        self.installer.stop(left_s())
        self.link.stop(left_s())
        self.api.stop(left_s())
        self._renewal.stop(left_s())
        self._home.api_port_note.unlink(missing_ok=True)
        self.engine.close()
        self.store.close()
        self.outbox.close()

    def alive(self) -> bool:
        """Tell whether every thread that was started still runs; the watchdog restarts an agent where one died."""
        return self._threads <= _own_threads()

    def status(self) -> AgentStatus:
        """Return how the agent stands, for the device's owner."""
        beat = self.vitals.heartbeat()
        return AgentStatus(
            device=self._config.device,
            profile=self._profile.name,
            profile_version=self._profile.version,
            uptime_s=beat.uptime_s,
            pss_bytes=beat.pss_bytes,
            disk_free_bytes=beat.disk_free_bytes,
            broker_connected=beat.broker_connected,
            broker_version=self.mqtt.version,
            server=self.link.status(),
            telemetry=self.pipeline.status(),
            samples={name: self.store.count(name) for name in self.store.specs()},
            bundles=self.installer.reports(),
            alarms_active=self._alarms.active(),
            inferences_total=beat.inferences_total,
            alarms_total=beat.alarms_total,
            outbox_pending=beat.outbox_pending,
            trainer=self.supervisor.state(),
        )

    def _on_window(self, sample: Sample) -> None:
        prediction = self.engine.predict(sample.spec, sample.array, live=True)
        told = self._alarms.follow(sample, prediction)
        if told is not None:
            self._tell(*told)
            self._report()

    def _on_notice(self, notice: Notice) -> None:
        log.warning("%s: %s", notice.code, notice.text)
        self._tell("warning", notice)

    def _tell(self, severity: Severity, body: EventBody) -> None:
        """Put an event into the outbox and on the broker; a full disk costs the first, never the second."""
        kind = str(body.__struct_config__.tag)
        try:
            self.outbox.put(severity, body)
        except HedgerowError as error:
            log.error("event %s is lost to the server: %s", kind, error)
        self._publish(f"up/{kind}", msgspec.json.encode(body))

    def _note_port(self) -> None:
        try:
            write_atomically(self._home.api_port_note, str(self.api.port).encode())
        except StorageError as error:
            log.warning("%s; the commands on this device find the agent only by its api_port", error)

    def _changed(self) -> None:
        self._report()

    def _on_desired(self, desired: DesiredState) -> None:
        try:
            self._follow(desired)
        except Exception as error:  # the polling thread's boundary: it must outlive any fault of a part
            log.exception("desired state %d could not be followed", desired.revision)
            raise HedgerowError(
                f"desired state {desired.revision}: {type(error).__name__}: {error}"
            ) from error

    def _follow(self, desired: DesiredState) -> None:
        self.installer.want(desired.bundles)
        if self._config.trainer.enabled:
            self.supervisor.want({job.job_id for job in desired.jobs})
        self._desired = desired
        self._report()

    def _identity_renewed(self) -> None:
        """Go on under the new key: the link's next connection, and the trainers, whose Flower node has that key."""
        self.link.identity_renewed()
        self.mqtt.identity_renewed()
        self.supervisor.restart()

    def _trainer_exited(self, job_id: str, code: int) -> None:
        self.link.trainer_exited(TrainerExit(job_id, code))
        self._report()

    def _history(self, spec: str, limit: int) -> npt.NDArray[np.generic]:
        """Return samples to fit on; none if the store cannot be read, so that what is fitted goes on answering."""
        try:
            return self.store.read(spec, limit=limit).arrays
        except HedgerowError as error:
            log.warning("no samples of %s to fit on: %s", spec, error)
            return np.empty((0, *self.engine.specs()[spec].shape), np.float32)


def _own_threads() -> frozenset[str]:
    return frozenset(t.name for t in threading.enumerate() if t.name.startswith("hedgerow-"))


def run(path: Path) -> int:
    """Run the agent of ``path`` until SIGTERM or Ctrl-C. Exit codes: 0 stopped, 1 could not start."""
    home = AgentHome(path)
    if not home.joined():
        raise ConfigError(
            f"{path}: this device has not joined a fleet; do: hedgerow agent join TOKEN --home {path}"
        )
    config = read_config(home.config)
    logging.basicConfig(
        level=config.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    profile = for_device(read_profile(home.path / config.profile), config.device)
    daemon = Daemon(home, config, profile)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watchdog = Watchdog()
    try:
        daemon.start()
        watchdog.ready()
        watchdog.watch(daemon.alive, stop)
    finally:
        watchdog.stopping()
        daemon.stop()
    return 0


def main(arguments: list[str]) -> int:
    """Run ``python -m hedgerow.edge_agent.daemon HOME``."""
    try:
        return run(Path(arguments[0]))
    except HedgerowError as error:
        sys.stderr.write(f"hedgerow agent run: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
