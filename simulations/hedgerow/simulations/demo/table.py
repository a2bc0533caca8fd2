"""The demo's last words: what happened, in tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from hedgerow.server.dashboard.formats import micros, number, size
from hedgerow.simulations.demo.detection import Detection
from hedgerow.simulations.demo.result import DemoResult, DeviceResult, JobResult


def print_result(result: DemoResult, console: Console) -> None:
    """Print every table and whether the demo succeeded."""
    _table(
        console, "Models, by the score on the recipe's public set (or as the column says)",
        ("job", "rounds", "score", "untrained", "local only", "federated", "pooled", "up / down a device", "served by"),
        [_job_row(job) for job in result.jobs],
    )  # fmt: skip
    _table(
        console, "What was shipped", ("model", "runtime and precision", "size", "latency p50"),
        [row for job in result.jobs for row in _artefact_rows(job)],
    )  # fmt: skip
    _table(
        console, "Devices, ε recomputed from each ledger file",
        ("device", "ε", "δ", "1 / (10 n)", "steps", "serves", "memory", "link up / down"),
        [_device_row(device) for device in result.devices],
    )  # fmt: skip
    if result.detection:
        _table(
            console, "Detection on the same replay", ("detector", "found", "delay in windows", "false alarms", "windows"),
            [_detection_row(detection) for detection in result.detection],
        )  # fmt: skip
    if result.alarm is not None:
        seen = ("device", result.alarm.on_device), ("MQTT", result.alarm.on_mqtt), (
            "events", result.alarm.in_events), ("dashboard", result.alarm.on_dashboard)  # fmt: skip
        where = ", ".join(name for name, there in seen if there)
        console.print(
            f"alarm of {result.alarm.device}: {result.alarm.top_channel} first, bundle {result.alarm.bundle[:12]}, "
            f"{result.alarm.runtime} {result.alarm.precision}; seen on {where}"
        )
    if result.labelled is not None:
        found = result.labelled
        console.print(
            f"against the labels of {found.rows} rows: F1 {found.f1:.2f}, false alarms {found.false_alarm_rate:.1%}, "
            f"missed {found.missed_alarm_rate:.1%}"
        )
    for shortfall in result.shortfalls:
        console.print(f"fell short: {shortfall}", markup=False)
    console.print(f"{'done' if result.success else 'FAILED'} in {result.seconds:.0f} s")


def _table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _job_row(job: JobResult) -> list[str]:
    return [
        f"{job.name} ({job.mode})",
        str(job.rounds),
        job.metric,
        f"{job.untrained:.3f}",
        f"{job.local_only:.3f}",
        f"{job.federated:.3f}",
        f"{job.pooled:.3f}",
        f"{size(job.bytes_up_per_device)} / {size(job.bytes_down_per_device)}",
        f"{job.serving} devices",
    ]


def _artefact_rows(job: JobResult) -> list[list[str]]:
    return [
        [
            f"{job.model} v{job.version}",
            name.replace(".", " "),
            size(found["size_bytes"]),
            micros(found["latency_p50_us"]),
        ]
        for name, found in sorted(job.artefacts.items())
    ]


def _device_row(device: DeviceResult) -> list[str]:
    return [
        device.device,
        number(device.epsilon),
        number(device.delta, 2),
        number(device.delta_allowed, 2),
        str(device.steps),
        f"{device.runtime} {device.precision}",
        size(device.pss_bytes),
        f"{size(device.link_up_bytes)} / {size(device.link_down_bytes)}",
    ]


def _detection_row(found: Detection) -> list[str]:
    delay = "–" if found.delay_windows is None else str(found.delay_windows)
    return [
        found.detector,
        "yes" if found.detected else "no",
        delay,
        str(found.false_alarms),
        str(found.windows),
    ]
