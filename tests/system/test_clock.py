"""A device whose clock is wrong: it serves and ingests, and neither refreshes nor installs until its clock is right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.agent_bed import AgentBed, until
from tests.support.tools import need_program

from hedgerow.simulations.fleet.clock import skewed_environment

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("agent-clock")]


def in_1970(folder: Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock began a minute ago, in 1970, for its children too."""
    need_program("cc")
    return skewed_environment(folder, 60 - time.time())


def windows(bed: AgentBed) -> int:
    return int(bed.status().get("samples", {}).get("window", 0))


def trusted(bed: AgentBed) -> dict[str, bytes]:
    """Return the signed metadata that the device has taken in."""
    files = [path for path in bed.home.tuf_metadata.rglob("*") if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


def served(bed: AgentBed) -> list[tuple[str, str]]:
    return [(one["manifest_sha256"], one["state"]) for one in bed.status().get("bundles", [])]


def wanted(bed: AgentBed, manifest: str) -> dict[str, Any]:
    """Return what the device reports of a bundle that it is to install; empty as long as it says nothing."""
    reports = bed.status().get("bundles", [])
    return next((one for one in reports if one["manifest_sha256"] == manifest and one["reason"]), {})


def test_a_device_that_wakes_in_1970_serves_and_ingests_and_tells_later(
    bed: AgentBed, tmp_path: Path
) -> None:
    before = trusted(bed)
    bed.start(environment=in_1970(tmp_path))
    until(lambda: bed.status().get("broker_connected"))
    bed.publish(60)
    until(lambda: windows(bed) >= 59)
    answer = until(lambda: (found := bed.answer()).get("reason") == "champion" and found)
    assert answer["source"]["bundle"] == bed.bundle
    bed.publish(2, 60.0)
    bed.publish(6)
    until(lambda: bed.waiting("alarm") and bed.waiting("alarm-cleared"))
    status = bed.status()
    assert status["telemetry"]["clock_ok"] is False
    assert status["telemetry"]["messages_before_clock_set"] >= 60
    # TLS cannot verify anything in 1970; it says why, and goes on trying.
    assert not status["server"]["connected"]
    assert "not valid yet by this device's clock (1970-01-01" in status["server"]["reason"]
    assert served(bed) == [(bed.bundle, "serving")]
    assert trusted(bed) == before
    bed.stop()

    bed.start()
    until(lambda: bed.events("alarm") and bed.events("alarm-cleared"))
    assert "clock-not-set" in {event["detail"]["code"] for event in bed.events("notice")}
    assert windows(bed) >= 59


def test_a_clock_behind_the_last_known_time_installs_nothing_until_it_is_right(
    bed: AgentBed, tmp_path: Path
) -> None:
    """Little enough for TLS to work, so that the server's wishes arrive."""
    bed.kill_server()
    bundle = bed.roll_out(tmp_path / "second")
    bed.start_server()
    ahead_us = (time.time_ns() // 1000) + 20 * 60 * 1_000_000
    bed.home.clock.write_text(f'{{"last_known_us": {ahead_us}}}')
    before = trusted(bed)

    bed.start()
    refused = until(lambda: wanted(bed, bundle))
    assert refused["state"] == "downloading", "it is tried again"
    assert refused["reason"].startswith("clock-behind: the clock stands before the last known time")
    assert bed.status()["server"]["connected"]
    until(lambda: (bed.bundle, "serving") in served(bed))
    assert trusted(bed) == before, "nothing was refreshed"
    assert bed.answer()["source"]["bundle"] == bed.bundle
    stored = windows(bed)
    bed.publish(10)
    until(lambda: windows(bed) >= stored + 9)
    bed.stop()

    bed.home.clock.unlink()
    bed.start()
    until(lambda: (bundle, "serving") in served(bed))
    assert bed.answer()["source"]["bundle"] == bundle
    assert trusted(bed) != before
