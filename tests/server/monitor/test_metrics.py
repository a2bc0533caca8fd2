"""The exposition as Prometheus reads it: by the client library's own parser, over fleets of any kind."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.support.operator import NOW, RecordInMemory, device, job, model, round_view, withheld_round

from hedgerow.server.monitor.metrics import UNREGISTERED, FleetCollector, render
from hedgerow.server.monitor.views import AlertView, DeviceView, ServingView

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(record: RecordInMemory, alerts: list[AlertView] | None = None) -> Samples:
    """Return every sample by name and labels; twice the same series is an error, as Prometheus has it."""
    text = render(FleetCollector(record, lambda: alerts or [])).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    found = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def value(samples: Samples, name: str, /, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def names(samples: Samples, name: str) -> set[tuple[tuple[str, str], ...]]:
    return {labels for found, labels in samples if found == name}


FAMILIES = {
    "hedgerow_fleet_devices": "gauge",
    "hedgerow_fleet_serving_devices": "gauge",
    "hedgerow_telemetry_readings": "counter",
    "hedgerow_telemetry_quarantined": "counter",
    "hedgerow_inference_runs": "counter",
    "hedgerow_inference_alarms": "counter",
    "hedgerow_device_sent_bytes": "counter",
    "hedgerow_device_received_bytes": "counter",
    "hedgerow_jobs": "gauge",
    "hedgerow_privacy_epsilon_max": "gauge",
    "hedgerow_round_number": "gauge",
    "hedgerow_round_duration_seconds": "gauge",
    "hedgerow_round_devices": "gauge",
    "hedgerow_alerts_active": "gauge",
}


@pytest.mark.parametrize(
    "record",
    [RecordInMemory(), RecordInMemory([device()], [job()], {"j1": [round_view(1)]}, [model()])],
    ids=["empty", "running"],
)
def test_every_family_is_there_with_type_and_help_whatever_the_fleet(record: RecordInMemory) -> None:
    families = list(text_string_to_metric_families(render(FleetCollector(record, list)).decode()))

    assert {family.name: family.type for family in families} == FAMILIES
    assert all(family.documentation for family in families)


COUNTS = st.integers(0, 2**53)
DEVICES = st.builds(
    lambda n, status, counts: device(f"d{n}", status=status, **counts),
    st.integers(0, 10**6),
    st.sampled_from(["online", "offline", "never-seen", "revoked"]),
    st.fixed_dictionaries(
        dict.fromkeys(("readings_total", "quarantined_total", "inferences_total", "alarms_total", "bytes_up", "bytes_down"), COUNTS)
    ),
)  # fmt: skip


@settings(max_examples=40)
@given(st.lists(DEVICES, max_size=6))
def test_the_sums_are_those_of_the_devices(devices: list[DeviceView]) -> None:
    samples = scraped(RecordInMemory(devices, all_models=[model()]))

    statuses = Counter(one.status for one in devices)
    for status in ("online", "offline", "never-seen", "revoked"):
        assert value(samples, "hedgerow_fleet_devices", status=status) == statuses[status]
    for name, field in (
        ("hedgerow_telemetry_readings_total", "readings_total"),
        ("hedgerow_telemetry_quarantined_total", "quarantined_total"),
        ("hedgerow_inference_runs_total", "inferences_total"),
        ("hedgerow_inference_alarms_total", "alarms_total"),
        ("hedgerow_device_sent_bytes_total", "bytes_up"),
        ("hedgerow_device_received_bytes_total", "bytes_down"),
    ):
        assert value(samples, name) == float(sum(getattr(one, field) for one in devices))


def served(name: str, version: int | None, state: str = "serving") -> ServingView:
    return ServingView(name, 2, version, state, "onnxruntime", "int8", "")


def test_devices_are_counted_by_what_they_serve() -> None:
    devices = [
        device("a", serving=(served("pump", 2),)),
        device("b", serving=(served("pump", 2),)),
        device("c", serving=(served("pump", 1),)),
        device("d", serving=(served("pump", None, "pending"),)),
        device("e", serving=()),
    ]
    samples = scraped(RecordInMemory(devices, all_models=[model(2), model(1, ())]))
    family = "hedgerow_fleet_serving_devices"

    assert value(samples, family, model="pump", version="2", state="serving") == 2
    assert value(samples, family, model="pump", version="1", state="serving") == 1
    assert value(samples, family, model="pump", version="0", state="pending") == 1
    assert len(names(samples, family)) == 3


HOSTILE = [
    '"',
    "\\",
    "\n",
    '"} 1\nhedgerow_jobs{state="delivered"',
    "",
    "ä",
    "😀",
    "pump\x00",
    "x" * 128,
    "{}",
    "#",
]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_name_that_a_device_makes_up_becomes_no_label(name: str) -> None:
    devices = [device("a", serving=(served(name, 2),)), device("b", serving=(served("pump", 2),))]
    samples = scraped(RecordInMemory(devices, all_models=[model(2)]))
    family = "hedgerow_fleet_serving_devices"

    assert value(samples, family, model=UNREGISTERED, version=UNREGISTERED, state="serving") == 1
    assert value(samples, family, model="pump", version="2", state="serving") == 1
    assert names(samples, "hedgerow_jobs") == set()


def test_a_device_that_makes_up_a_thousand_models_and_versions_makes_no_thousand_series() -> None:
    many = tuple(served(f"m{n}", n) for n in range(1000)) + tuple(served("pump", n) for n in range(3, 1000))
    one = scraped(
        RecordInMemory([device("a", serving=(served("m", 1), served("pump", 9)))], all_models=[model(2)])
    )
    samples = scraped(RecordInMemory([device("a", serving=many)], all_models=[model(2)]))

    assert names(samples, "hedgerow_fleet_serving_devices") == names(one, "hedgerow_fleet_serving_devices")
    family = "hedgerow_fleet_serving_devices"
    assert value(samples, family, model="pump", version=UNREGISTERED, state="serving") == 997


def test_jobs_are_counted_by_state_and_the_largest_epsilon_shows() -> None:
    jobs = [job("a", epsilon=1.5), job("b", state="failed", epsilon=7.25), job("c", epsilon=None)]
    samples = scraped(RecordInMemory(all_jobs=jobs))

    assert value(samples, "hedgerow_jobs", state="running") == 2
    assert value(samples, "hedgerow_jobs", state="failed") == 1
    assert value(samples, "hedgerow_privacy_epsilon_max") == 7.25


def test_the_rounds_are_those_of_the_newest_job_that_has_any() -> None:
    jobs = [job("queued", round=0), job("newest", round=3), job("older", round=9)]
    rounds = {"newest": [round_view(2), round_view(3)], "older": [round_view(9)], "queued": []}
    samples = scraped(RecordInMemory(all_jobs=jobs, all_rounds=rounds))

    assert value(samples, "hedgerow_round_number") == 3
    assert value(samples, "hedgerow_round_duration_seconds") == 1.5
    outcomes = {"replied": 4, "rejected": 1, "dropped": 1}
    for outcome, count in outcomes.items():
        assert value(samples, "hedgerow_round_devices", outcome=outcome) == count


def test_a_round_that_withholds_its_counts_has_no_series_of_them_rather_than_zeros() -> None:
    record = RecordInMemory(all_jobs=[job(mode="central-poisson")], all_rounds={"j1": [withheld_round(2)]})

    assert names(scraped(record), "hedgerow_round_devices") == set()


@pytest.mark.parametrize("missing", ["replied", "rejected", "dropped"])
def test_each_count_is_withheld_on_its_own(missing: str) -> None:
    one = msgspec.structs.replace(round_view(1), **{missing: None})
    found = names(
        scraped(RecordInMemory(all_jobs=[job()], all_rounds={"j1": [one]})), "hedgerow_round_devices"
    )

    assert {dict(labels)["outcome"] for labels in found} == {"replied", "rejected", "dropped"} - {missing}


def test_alerts_are_counted_by_name_and_severity_and_their_subjects_are_not_told() -> None:
    alerts = [
        AlertView("DeviceOffline", "warning", "pump-1", "no heartbeat", NOW),
        AlertView("DeviceOffline", "warning", "pump-2", "no heartbeat", NOW),
        AlertView("Anomaly", "critical", "pump-1", "flow", NOW),
    ]
    record = RecordInMemory([device("pump-1")])
    samples = scraped(record, alerts)

    assert value(samples, "hedgerow_alerts_active", name="DeviceOffline", severity="warning") == 2
    assert value(samples, "hedgerow_alerts_active", name="Anomaly", severity="critical") == 1
    assert b"pump-1" not in render(FleetCollector(record, lambda: alerts))


def test_every_value_is_a_finite_number_even_of_an_empty_fleet() -> None:
    assert all(math.isfinite(number) for number in scraped(RecordInMemory()).values())


def test_a_counter_s_sample_has_the_suffix_that_prometheus_asks_for() -> None:
    text: Any = render(FleetCollector(RecordInMemory([device()]), list)).decode()

    for name, kind in FAMILIES.items():
        assert (f"\n{name}_total " in text) is (kind == "counter")
