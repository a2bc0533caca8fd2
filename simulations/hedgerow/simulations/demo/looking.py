"""Looks for the planted fault's alarm where people and programs would: device, MQTT, events, dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import httpx

from hedgerow.shared.profile import DeviceProfile
from hedgerow.simulations.demo.detection import Heard, Planted, delay_windows
from hedgerow.simulations.demo.result import AlarmResult, JobResult
from hedgerow.simulations.processes.fleet import Agent, Server

WITHIN_WINDOWS: Final = 2


class Lookout:
    """Knows where to look."""

    def __init__(self, server: Server, agents: Mapping[str, Agent], profile: DeviceProfile) -> None:
        self._server = server
        self._agents = agents
        self._profile = profile

    def find(
        self, planted: Planted, alarms: Sequence[Heard], job: JobResult
    ) -> tuple[AlarmResult | None, list[str]]:
        """Return the alarm with where it was seen, and what fell short of what was wanted of it."""
        found = next((a for a in alarms if a.device == planted.device and a.end_row >= planted.row), None)
        if found is None:
            return None, [f"the {planted.kind} fault of {planted.device} raised no alarm"]
        alarm = found.alarm
        result = AlarmResult(
            device=planted.device,
            top_channel=max(alarm.attribution, key=lambda share: share.share).channel,
            bundle=alarm.bundle,
            runtime=alarm.runtime,
            precision=alarm.precision,
            delay_windows=delay_windows(found.end_row, planted.row, self._profile.window.stride),
            on_device=bool(self._agents[planted.device].status()["alarms_active"]),
            on_mqtt=True,  # it was read off MQTT
            in_events=self._in_events(planted.device, alarm.window_end_us),
            on_dashboard=self._on_dashboard(planted.device, alarm.bundle),
        )
        return result, shortfalls(result, planted, job)

    def _in_events(self, device: str, window_end_us: int) -> bool:
        events = self._server.client.get("events", device=device, limit=1000)
        return any(e["kind"] == "alarm" and e["detail"].get("window_end_us") == window_end_us for e in events)

    def _on_dashboard(self, device: str, bundle: str) -> bool:
        with httpx.Client(base_url=self._server.dashboard, timeout=10) as browser:
            browser.post("/login", data={"token": self._server.operator_token.read_text().strip()})
            page = browser.get("/").text
        return f"<td>{device}</td>" in page and bundle[:12] in page


def shortfalls(alarm: AlarmResult, planted: Planted, job: JobResult) -> list[str]:
    """Return what about an alarm is not as it must be: in time, rightly explained, by the delivered int8 model, seen."""
    wanted = {
        f"the alarm came after {alarm.delay_windows} windows, not within {WITHIN_WINDOWS}": alarm.delay_windows
        <= WITHIN_WINDOWS,
        f"the alarm names {alarm.top_channel} first, not {planted.channel}": alarm.top_channel
        == planted.channel,
        "the alarm was not raised by the delivered bundle": alarm.bundle == job.manifest_sha256,
        "the alarm was not raised by an int8 runtime": alarm.precision == "int8",
        "the alarm does not show on the device": alarm.on_device,
        "the alarm is not in the server's events": alarm.in_events,
        "the alarm is not on the dashboard": alarm.on_dashboard,
    }
    return [what for what, held in wanted.items() if not held]
