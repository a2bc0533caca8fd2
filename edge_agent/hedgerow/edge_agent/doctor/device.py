"""Checks of a device's folder. All of them read only: an agent may be running on it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from hedgerow.edge_agent.clock import TOLERANCE_US, read_last_known_us
from hedgerow.edge_agent.config import AgentConfig, read_config
from hedgerow.edge_agent.doctor.finding import Finding
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.edge_agent.slots.disk import slot_fault
from hedgerow.edge_agent.slots.slots import Slots
from hedgerow.shared.errors import HedgerowError
from hedgerow.shared.profile import DeviceProfile, for_device, read_profile

DISK_WRONG_BYTES: Final = 64 * 1024 * 1024
DISK_WARNING_BYTES: Final = 512 * 1024 * 1024
# The agent renews at two thirds of a certificate's life; with less than a sixth left, that has failed for long.
_LATE: Final = 1 / 6


def check_joined(home: AgentHome) -> Finding:
    """Find whether this folder belongs to a device of a fleet."""
    if home.joined():
        return Finding("joined", "ok", f"{home.path} belongs to a device of a fleet")
    missing = [path.name for path in (home.config, home.key, home.certificate) if not path.exists()]
    return Finding(
        "joined",
        "wrong",
        f"{home.path} has not joined a fleet: no {', '.join(missing)}",
        f"hedgerow agent join TOKEN --home {home.path}",
    )


def check_config(home: AgentHome) -> tuple[Finding, AgentConfig | None]:
    """Find what the agent would say of its ``agent.toml``; return the settings too if they are usable."""
    try:
        config = read_config(home.config)
    except HedgerowError as error:
        return Finding("agent.toml", "wrong", str(error), "correct the file; nothing else reads it"), None
    return Finding("agent.toml", "ok", f"device {config.device} of {config.server_url}"), config


def check_profile(home: AgentHome, config: AgentConfig) -> tuple[Finding, DeviceProfile | None]:
    """Find what the agent would say of its profile; return it too if it is usable."""
    path = home.path / config.profile
    try:
        profile = for_device(read_profile(path), config.device)
    except HedgerowError as error:
        return Finding(
            "profile", "wrong", str(error), "correct the file, or copy one of firmware_configs/profiles"
        ), None
    return Finding("profile", "ok", f"{profile.name} version {profile.version}"), profile


def check_certificate(home: AgentHome, now_s: float | None = None) -> Finding:
    """Find whether the device's identity is a pair and its certificate good for now and for a while."""
    name = "certificate"
    again = f"hedgerow agent join TOKEN --again --home {home.path}"
    try:
        files = home.identity_files()
        device_context(files)
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (HedgerowError, OSError, ValueError) as error:
        return Finding(name, "wrong", str(error), again)
    now = time.time() if now_s is None else now_s
    begins = certificate.not_valid_before_utc.timestamp()
    ends = certificate.not_valid_after_utc.timestamp()
    if now < begins:
        return Finding(
            name, "wrong", f"not valid before {_date(begins)}, and it is {_date(now)}", "set the clock"
        )
    if now >= ends:
        return Finding(name, "wrong", f"expired {_date(ends)}, and it is {_date(now)}", again)
    if ends - now < _LATE * (ends - begins):
        remedy = "see in the agent's log why it could not renew; the server must be reachable"
        return Finding(name, "warning", f"expires {_date(ends)} and was not renewed", remedy)
    return Finding(name, "ok", f"good until {_date(ends)}")


def check_clock(home: AgentHome, now_us: int | None = None) -> Finding:
    """Find whether the clock stands before a time that is known to have passed."""
    known_us = read_last_known_us(home.clock)
    now = time.time_ns() // 1000 if now_us is None else now_us
    if not known_us:
        return Finding("clock", "skipped", f"{_date(now / 1e6)}; no time was heard from the server yet")
    if now < known_us - TOLERANCE_US:
        what = f"it says {_date(now / 1e6)}, but {_date(known_us / 1e6)} has passed"
        return Finding(
            "clock", "wrong", what, "set the clock (timedatectl set-ntp true), or fit an RTC battery"
        )
    return Finding("clock", "ok", f"{_date(now / 1e6)}")


def check_disk(folder: Path, free_bytes: int | None = None) -> Finding:
    """Find whether there is room left where the device keeps its things."""
    if free_bytes is None:
        try:
            there = os.statvfs(folder)
        except OSError as error:
            return Finding("disk", "wrong", f"{folder}: {error.strerror}", "mount it, or name another --home")
        free_bytes = there.f_bavail * there.f_frsize
    what = f"{free_bytes / 1e6:.0f} MB free at {folder}"
    if free_bytes < DISK_WRONG_BYTES:
        return Finding(
            "disk", "wrong", f"nearly full: {what}", "free space, or lower store.max_bytes in the profile"
        )
    if free_bytes < DISK_WARNING_BYTES:
        return Finding("disk", "warning", what, "an update needs room for a third version of each model")
    return Finding("disk", "ok", what)


def check_slots(home: AgentHome) -> list[Finding]:
    """Find for each model whether the bundle that serves, and the one before it, are as they were installed."""
    try:
        models = Slots.models(home.slots)
    except OSError as error:
        return [Finding("slots", "wrong", f"{home.slots}: {error.strerror}", "run as the agent's user")]
    if not models:
        return [Finding("slots", "skipped", "no model was installed yet: the baseline serves")]
    return [_check_model(Slots(home.slots, model)) for model in models]


def _check_model(slots: Slots) -> Finding:
    name = f"slots {slots.model}"
    active = slots.active()
    if active is None:
        return Finding(
            name, "warning", "no bundle is active: the baseline serves", "wait for a rollout, or start one"
        )
    installed, fault = slot_fault(active)
    other, other_fault = slot_fault(slots.idle())
    if installed is None:
        instead = "the baseline" if other is None else f"version {other.version}"
        what = f"slot {active.name} is damaged ({fault}); at its next start the agent serves {instead}"
        return Finding(name, "wrong", what, "check the disk; roll the model out again from the server")
    if other is None and other_fault != "empty":
        what = f"version {installed.version} is intact, the one to go back to is not ({other_fault})"
        return Finding(name, "warning", what, "check the disk; the next update replaces it")
    return Finding(name, "ok", f"version {installed.version} is intact")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
