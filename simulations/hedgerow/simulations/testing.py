"""Real fleets in your own tests: a pytest plugin.

In ``conftest.py``::

    pytest_plugins = ["hedgerow.simulations.testing"]

In a test, ``fleet`` makes a running server with devices that hold data of their own, all processes of this machine; they
are ended, and their folder is removed, after the test::

    def test_a_job_survives_its_server(fleet):
        running = fleet(devices=3)
        job = running.submit(training_job(rounds=5))
        running.wait_for_round(job, 2)
        running.kill_server()
        running.start_server()
        running.kill(0)
        running.start(0)
        running.wait_for_state(job, "delivered")
        assert len(running.rounds(job)) == 5

What a running fleet can do is in ``hedgerow.simulations.fleet.running.RunningFleet``: ``submit``, ``job``, ``rounds``,
``wait_for_round``, ``wait_for_state``, ``kill``, ``stop``, ``start`` a device, ``kill_server``, ``stop_server``,
``start_server``, ``network.cut`` and ``heal``, ``events``, ``models``, ``devices``, and ``server.client`` for the rest of
the fleet API. A fleet takes about 15 s to start on two cores, and 330 MB a device once it trains.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from hedgerow.shared.job import GateSpec, Job, PrivacySpec, TrainingSpec
from hedgerow.simulations.fleet.run import make_fleet, make_scene
from hedgerow.simulations.fleet.running import RunningFleet
from hedgerow.simulations.run.names import find_scenario
from hedgerow.simulations.scenario.spec import FaultsSpec, PopulationSpec, Scenario


class MakeFleet(Protocol):
    """Starts a fleet and returns it once every device is connected."""

    def __call__(
        self,
        devices: int = 3,
        *,
        job: Job | None = None,
        population: PopulationSpec | None = None,
        faults: FaultsSpec | None = None,
        seed: int = 0,
    ) -> RunningFleet:
        """Return a fleet whose devices hold what ``job`` (handwritten digits if None) trains on.

        ``population`` says whose data, its ``devices`` apart; of ``faults`` those hold that last: ``loss``, ``delay_ms``,
        ``clock_skew_s`` and byzantine devices. Raises ConfigError naming the field, TransportError.
        """


def training_job(name: str = "digits", rounds: int = 3, mode_none: bool = True) -> Job:
    """Return a small job over handwritten digits whose model the gate lets pass; without privacy, or with ε 8."""
    privacy = PrivacySpec("none") if mode_none else PrivacySpec("example", epsilon=8.0, delta=1e-5)
    return Job(
        name,
        "digits-cnn",
        privacy,
        rounds=rounds,
        training=TrainingSpec(learning_rate=0.005, optimizer="adam"),
        gate=GateSpec(min_agreement=0.0, max_metric_drop=1.0),
    )


@pytest.fixture
def fleet() -> Iterator[MakeFleet]:
    """Make running fleets; see the module. All of them end with the test, whether it passes or not."""
    with contextlib.ExitStack() as ends:

        def make(
            devices: int = 3,
            *,
            job: Job | None = None,
            population: PopulationSpec | None = None,
            faults: FaultsSpec | None = None,
            seed: int = 0,
        ) -> RunningFleet:
            import msgspec

            whose = msgspec.structs.replace(population or PopulationSpec(devices), devices=devices)
            scenario = Scenario(
                "test", job or training_job(), whose, seed=seed, engine="fleet", faults=faults or FaultsSpec()
            )
            folder = Path(tempfile.mkdtemp(prefix="hedgerow-fleet-"))
            ends.callback(shutil.rmtree, folder, ignore_errors=True)
            running = ends.enter_context(make_fleet(make_scene(find_scenario(scenario)), folder))
            running.wait_connected()
            return running

        yield make
