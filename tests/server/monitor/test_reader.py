"""The reader shows operators what the server's parts hold, and nothing that they do not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fleet import heartbeat_of
from tests.support.server_parts import Parts

from hedgerow.server.jobs.store import JobStore
from hedgerow.server.monitor.reader import ServerReader, Sources
from hedgerow.server.rounds.tables import RoundRow
from hedgerow.server.store.database import utc_now
from hedgerow.shared.job import Job, PrivacySpec
from hedgerow.shared.messages import (
    BundleReport,
    BundleTarget,
    Event,
    EventBatch,
    LatencyHistogram,
    Notice,
    ReportedState,
)

OFFLINE_S = 35.0


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def reader(parts: Parts) -> ServerReader:
    return ServerReader(
        Sources(
            parts.fleet,
            JobStore(parts.database),
            parts.registry,
            parts.rollouts,
            {"digits-cnn": "accuracy"}.__getitem__,
        )
    )


def test_an_empty_server_shows_nothing(reader: ServerReader) -> None:
    assert (reader.devices(), reader.jobs(), reader.models(), reader.rollouts(), reader.events()) == (
        [],
        [],
        [],
        [],
        [],
    )
    assert reader.job("j-1") is None
    assert reader.rounds("j-1") == []


def test_a_device_that_joined_and_never_spoke_is_never_seen(reader: ServerReader, parts: Parts) -> None:
    parts.join("pump-1", "hall-a")

    (view,) = reader.devices()
    assert (view.device, view.groups, view.status, view.last_seen_us) == (
        "pump-1",
        ("hall-a",),
        "never-seen",
        None,
    )
    assert (view.latency_p50_us, view.serving) == (None, ())


def test_a_heartbeat_is_shown_number_for_number(reader: ServerReader, parts: Parts) -> None:
    parts.join("pump-1")
    beat = heartbeat_of(
        "pump-1", agent_version="0.1.0", pss_bytes=70, disk_free_bytes=71, readings_total=72, quarantined_total=73,
        inferences_total=74, alarms_total=75, bytes_up=76, bytes_down=77,
        state=ReportedState(1, trainer="running", profile="pump", profile_version=3),
        latency=LatencyHistogram((100, 1000), (99, 1, 0)),
    )  # fmt: skip
    parts.fleet.heartbeats.record("pump-1", beat)

    (view,) = reader.devices()
    shown = [getattr(view, name) for name in (
        "pss_bytes", "disk_free_bytes", "readings_total", "quarantined_total", "inferences_total", "alarms_total",
        "bytes_up", "bytes_down",
    )]  # fmt: skip
    assert shown == list(range(70, 78))
    assert (view.status, view.agent_version, view.profile, view.profile_version, view.trainer) == (
        "online", "0.1.0", "pump", 3, "running",
    )  # fmt: skip
    assert view.latency_p50_us is not None
    assert view.latency_p50_us <= 100


def test_a_silent_device_is_offline_and_a_revoked_one_revoked(parts: Parts) -> None:
    for device in ("pump-1", "pump-2"):
        parts.join(device)
        parts.report(device)
    ages = ServerReader(
        Sources(parts.fleet, JobStore(parts.database), parts.registry, parts.rollouts, str),
        offline_after_s=0.0,
    )
    parts.fleet.devices.revoke("pump-2", "stolen")

    assert {view.device: view.status for view in ages.devices()} == {"pump-1": "offline", "pump-2": "revoked"}


def test_desired_and_reported_versions_stand_side_by_side(reader: ServerReader, parts: Parts) -> None:
    parts.join("pump-1")
    parts.fleet.desired.set_bundle(["pump-1"], BundleTarget("wanted-only", 2, "0" * 64))
    parts.fleet.desired.set_bundle(["pump-1"], BundleTarget("both", 3, "0" * 64))
    reports = (
        BundleReport("both", 2, "1" * 64, "serving", "litert", "int8"),
        BundleReport("left-over", 1, "2" * 64, "failed", reason="golden samples differ"),
    )
    parts.report("pump-1", bundles=reports)

    (view,) = reader.devices()
    assert [(s.model, s.desired_version, s.reported_version, s.state, s.runtime, s.reason) for s in view.serving] == [
        ("both", 3, 2, "serving", "litert", ""),
        ("left-over", None, 1, "failed", "", "golden samples differ"),
        ("wanted-only", 2, None, "pending", "", ""),
    ]  # fmt: skip


def test_a_job_is_shown_with_what_it_asked_for(reader: ServerReader, parts: Parts) -> None:
    jobs = JobStore(parts.database)
    jobs.add("j-1", Job("digits", "digits-cnn", PrivacySpec("example", 8.0, 1e-5), rounds=7), "h", 10, "ann")

    (view,) = reader.jobs()
    assert view == reader.job("j-1")
    assert (view.state, view.rounds, view.round, view.metric, view.finished_us) == (
        "queued",
        7,
        0,
        "accuracy",
        None,
    )
    assert (view.mode, view.epsilon_asked, view.delta_asked, view.epsilon) == ("example", 8.0, 1e-5, None)


@pytest.mark.parametrize(
    ("privacy", "withheld"),
    [
        (PrivacySpec("central-poisson", 2.0, 1e-5), True),
        (PrivacySpec("example", 8.0, 1e-5), False),
        (PrivacySpec("none"), False),
    ],
    ids=lambda value: value.mode if isinstance(value, PrivacySpec) else "",
)
def test_how_many_were_drawn_and_came_is_told_of_no_central_round(
    reader: ServerReader, parts: Parts, privacy: PrivacySpec, withheld: bool
) -> None:
    JobStore(parts.database).add("j-1", Job("digits", "digits-cnn", privacy), "h", 10, "ann")
    figures = {"drawn": 5, "replied": 3, "rejected": 1, "dropped": 1, "bytes_up": 70, "bytes_down": 80}
    with parts.database.transaction() as session:
        session.add(
            RoundRow(
                job_id="j-1", round=1, state="committed", attempt=1, cohort="[]", planned_at=utc_now(),
                committed_at=utc_now(), duration_s=1.5, reasons={"non-finite": 1}, epsilon=0.5, scores={"accuracy": 0.9},
                **figures,
            )
        )  # fmt: skip

    (view,) = reader.rounds("j-1")
    assert {name: getattr(view, name) for name in figures} == (
        dict.fromkeys(figures) if withheld else figures
    )
    assert view.reasons == ({} if withheld else {"non-finite": 1})
    assert (view.round, view.duration_s, view.epsilon, view.scores) == (1, 1.5, 0.5, {"accuracy": 0.9})


def test_jobs_are_newest_first_and_bounded(reader: ServerReader, parts: Parts) -> None:
    jobs = JobStore(parts.database)
    for n in range(4):
        jobs.add(f"j-{n}", Job("digits", "digits-cnn", PrivacySpec("none")), "h", 10, "")

    assert [view.job_id for view in reader.jobs(2)] == ["j-3", "j-2"]


def test_a_finished_job_names_its_model(reader: ServerReader, parts: Parts) -> None:
    jobs = JobStore(parts.database)
    jobs.add("j-1", Job("digits", "digits-cnn", PrivacySpec("none")), "h", 10, "")
    for state, result in (
        ("running", None),
        ("packaging", None),
        ("delivered", {"model": "digits", "version": 4}),
    ):
        jobs.move("j-1", state, result=result)  # type: ignore[arg-type]

    view = reader.job("j-1")
    assert view is not None
    assert (view.state, view.model, view.model_version, view.finished_us is None) == (
        "delivered",
        "digits",
        4,
        False,
    )


def test_models_come_with_lineage_gate_and_aliases_newest_first(reader: ServerReader, parts: Parts) -> None:
    for job_id in ("j-1", "j-2"):
        version = parts.register(job_id=job_id)
        parts.rollouts.start(version.model, version.version)
    parts.registry.next_version("only-a-name")

    views = reader.models()
    assert [(v.version, v.aliases, v.job_id) for v in views] == [
        (2, ("champion",), "j-2"),
        (1, ("previous",), "j-1"),
    ]
    assert [name for name, *_ in views[0].artefacts] == ["model.onnx", "model.tflite"]
    assert views[0].gate == (("agreement", True, 0.99, 0.95),)
    assert reader.models() == views


def test_rollouts_count_devices_by_state(reader: ServerReader, parts: Parts) -> None:
    parts.join("pump-1")
    version = parts.register()
    rollout = parts.rollouts.start(version.model, version.version)

    (view,) = reader.rollouts()
    assert (view.rollout_id, view.model, view.version, view.kind) == (str(rollout.id), "pump", 1, "rollout")
    assert view.devices["pending"] == 1


def test_events_are_newest_first_of_one_device_or_all(reader: ServerReader, parts: Parts) -> None:
    for device, sequence in itertools.product(("pump-1", "pump-2"), (1, 2)):
        store(parts, device, sequence)

    assert len(reader.events()) == 4
    assert len(reader.events(limit=3)) == 3
    ones = reader.events(device="pump-1")
    assert [(e.device, e.sequence, e.kind) for e in ones] == [
        ("pump-1", 2, "notice"),
        ("pump-1", 1, "notice"),
    ]
    assert "type" not in ones[0].detail
    assert ones[0].text


def store(parts: Parts, device: str, sequence: int) -> None:
    body = Notice("mqtt", "the broker is back")
    batch = EventBatch("e", (Event(sequence, 1000 + sequence, "info", body),))
    asyncio.run(parts.fleet.events.receive(device, batch))
