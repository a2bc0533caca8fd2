"""The server: its parts put together, started in order, stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hedgerow.models.recipe import find_recipe
from hedgerow.models.workbench.client import Workbench
from hedgerow.server.api.app import create_operator_app
from hedgerow.server.api.context import OperatorContext
from hedgerow.server.api.operators import Audit, Operators
from hedgerow.server.app.actions import ServerActions
from hedgerow.server.app.home import Running, ServerConfig, ServerHome
from hedgerow.server.app.packaging import Packaging
from hedgerow.server.app.population import Population
from hedgerow.server.app.reactions import Reactions
from hedgerow.server.bus import STOPPING, Bus
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.delivery.routes import routes as delivery_routes
from hedgerow.server.delivery.upkeep import Upkeep
from hedgerow.server.fleet.service import Fleet
from hedgerow.server.flower.fleet_app import fleet_app
from hedgerow.server.flower.link import FlowerLink
from hedgerow.server.flower.rounds_api import RoundsApi
from hedgerow.server.gateway import Gateway, GatewayConfig, Mount
from hedgerow.server.gateway.tls import gateway_context
from hedgerow.server.jobs.run import Parts
from hedgerow.server.jobs.service import JobService
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.ledger.accounts import PrivacyLedger
from hedgerow.server.monitor.alerts import evaluate
from hedgerow.server.monitor.reader import ServerReader, Sources
from hedgerow.server.monitor.views import AlertView
from hedgerow.server.pki.advertise import Advertisement
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.server.registry.service import Registry
from hedgerow.server.rounds.loop import LoopSettings
from hedgerow.server.rounds.models import ModelStore
from hedgerow.server.rounds.store import RoundStore
from hedgerow.server.serving import EmbeddedServer
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Database
from hedgerow.server.store.migrate import upgrade
from hedgerow.shared import fleetwire, limits
from hedgerow.shared.errors import ConfigError, TransportError
from hedgerow.shared.messages import TrainerExit

_log = logging.getLogger(__name__)


class Server:
    """One Hedgerow server over its folder. ``start`` then ``stop``, on one event loop.

    The folder must be this process's own (see ``claim``): making a server brings its database up to date.
    """

    def __init__(self, home: ServerHome, config: ServerConfig) -> None:
        self.home = home
        self.config = config
        self.bus = Bus()
        self.database = Database(home.database_url(config))
        upgrade(self.database)
        self.authority = CertificateAuthority.load(home.pki)
        self.repository = TufRepository(home.tuf, KeyFolder(home.secrets / "tuf"))
        self.fleet = Fleet(
            self.database, self.bus, self.authority, tuf_root=lambda: self.repository.root_bytes().decode()
        )
        self.registry = Registry(self.database, Blobs(home.blobs / "bundles"), self.bus)
        self.rollouts = Rollouts(
            self.database,
            self.bus,
            registry=self.registry,
            repository=self.repository,
            desired=self.fleet.desired,
            active_devices=lambda: [d.name for d in self.fleet.devices.all(active_only=True)],
        )
        self.bench = Workbench(environment={"OMP_NUM_THREADS": "1"})
        self.link = FlowerLink()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.jobs = self._make_jobs()
        self.gateway = self._make_gateway()
        self.operators = Operators(self.database)
        self._started = contextlib.AsyncExitStack()

    async def start(self) -> Running:
        """Start everything; return where it listens.

        Raises TransportError if an address cannot be had; what had started by then is stopped again.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop what was started, the last first: listeners drained, jobs left where they are, database closed."""
        await self._started.aclose()

    async def _start(self) -> Running:
        stack = self._started
        self._loop = asyncio.get_running_loop()
        self.bus.attach(self._loop)
        stack.callback(self.database.close)
        stack.push_async_callback(self.bench.close)
        stack.push_async_callback(self.fleet.stop)
        await self.fleet.start()
        await asyncio.to_thread(self._register_nodes)
        await asyncio.to_thread(self.rollouts.resume)
        self._spawn("hedgerow-upkeep", Upkeep(self.repository, self.rollouts, self.bus).run())
        self._spawn("hedgerow-reactions", Reactions(self.bus, self.fleet, self.rollouts).run())
        await self.gateway.start()
        stack.push_async_callback(self.gateway.stop)
        stack.push_async_callback(self.jobs.stop)
        await self.jobs.start()
        listener = self._make_listener()
        operator_port = await listener.listen("operator listener")
        stack.push_async_callback(listener.close)
        await self._advertise()
        running = Running(self.gateway.port, operator_port)
        stack.callback(self.home.clear_running)
        self.home.write_running(running)
        return running

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._started.push_async_callback(end)

    def _make_jobs(self) -> JobService:
        jobs = JobStore(self.database)
        parts = Parts(
            jobs=jobs,
            rounds=RoundStore(self.database, ModelStore(Blobs(self.home.blobs / "rounds"))),
            bus=self.bus,
            link=self.link,
            bench=self.bench,
            fleet=Population(self.fleet),
            desired=self.fleet.desired,
            on_trained=Packaging(self.bench, self.registry, self.rollouts, self.home.work),
            settings=LoopSettings(),
            ledger=PrivacyLedger(self.database, self.config.device_budget_epsilon),
        )
        self._reader = ServerReader(Sources(self.fleet, jobs, self.registry, self.rollouts, metric_of))
        return JobService(parts)

    def _make_gateway(self) -> Gateway:
        pair = self.authority.server_pair(self.config.hosts)
        context = gateway_context(pair.certificate, pair.key, self.authority.folder / "ca.pem")
        config = GatewayConfig(host=self.config.gateway_host, port=self.config.gateway_port)
        rounds = RoundsApi(self.link)
        mounts = [
            Mount("/v1/fleet/", fleet_app(self.link)),
            Mount("/v1/device/round/", rounds, limits.MAX_UPDATE_BYTES),
            Mount(fleetwire.MODELS_PATH, rounds),
        ]
        self.fleet.on_trainer_exit(self._trainer_exited)
        self.fleet.enrolment.on_key.append(self._on_loop(lambda d, key: self.link.register(d, _pem(key))))
        self.fleet.devices.on_revoked.append(self._on_loop(self.link.unregister))
        routes = [*self.fleet.routes(), *delivery_routes(self.repository.folder)]
        return Gateway(
            config, context, self.fleet.devices, routes=routes, mounts=mounts, on_drain=self._drain
        )

    def _make_listener(self) -> EmbeddedServer:
        context = OperatorContext(
            reader=self._reader,
            alerts=self.alerts,
            actions=ServerActions(self.jobs, self.rollouts, self.fleet),
            operators=self.operators,
            audit=Audit(self.database),
            bus=self.bus,
            allowed_hosts=self.config.operator_hosts,
            secure_cookie=self.config.secure_cookie,
        )
        config = uvicorn.Config(
            create_operator_app(context),
            host=self.config.operator_host,
            port=self.config.operator_port,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        return EmbeddedServer(config, on_drain=lambda: self.bus.publish(STOPPING))

    def alerts(self) -> list[AlertView]:
        """Return the alerts that hold now. Blocks on the database."""
        reader = self._reader
        return evaluate(reader.devices(), reader.jobs(), reader.rollouts(), reader.events(), _now_us())

    def _register_nodes(self) -> None:
        for device in self.fleet.devices.all():
            if device.status != "active":
                # A round that was drawn before the restart may still name it.
                self.link.unregister(device.name)
            elif keys := self.fleet.devices.public_keys(device.name):
                self.link.register(device.name, _pem(keys[0]))

    def _trainer_exited(self, device: str, told: TrainerExit) -> None:
        self.link.trainer_exited(device, reason=f"exit code {told.code} {told.reason}".strip())

    def _drain(self) -> None:
        self.link.drain()
        self.fleet.desired.wake_all()

    def _on_loop(self, act: Callable[..., Any]) -> Callable[..., None]:
        """Return ``act`` to be called from any thread: it runs on the server's loop, where the link lives."""

        def call(*arguments: Any) -> None:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(act, *arguments)

        return call

    async def _advertise(self) -> None:
        if not self.config.advertise:
            return
        advertisement = Advertisement(self.authority.server_id, self.authority.pin, self.gateway.port)
        try:
            await advertisement.start()
        except TransportError as error:
            _log.warning("%s; devices need --url to join", error)
            return
        self._started.push_async_callback(advertisement.stop)


@cache
def metric_of(recipe: str) -> str:
    """Return the name of the score that counts in a recipe, ``""`` if it is not installed here."""
    with contextlib.suppress(ConfigError):
        return find_recipe(recipe).metric
    return ""


def _pem(spki: bytes) -> bytes:
    return load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _now_us() -> int:
    return time.time_ns() // 1000
