"""The device profile: what a device measures, how readings arrive, how they become samples, and its budgets.

Written by people in TOML (``firmware_configs/profiles``), read by the agent; ``version`` grows with every change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hedgerow.shared import limits
from hedgerow.shared.job import Name
from hedgerow.shared.specs import TensorSpec
from hedgerow.shared.tomlfile import read_toml

Positive = Annotated[float, Meta(gt=0)]


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measured quantity. Readings outside ``[minimum, maximum]`` are quarantined.

    ``nominal`` and ``spread`` are public knowledge about the kind of machine (a data sheet), never fitted on a
    device's data: private training scales by them. ``max_step`` bounds the change between two readings.
    """

    name: Name
    unit: Annotated[str, Meta(min_length=1, max_length=24)]
    minimum: float
    maximum: float
    nominal: float
    spread: Positive
    max_step: Positive | None = None


class WindowSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How readings become windows: ``length`` rows at ``rate_hz``, a new window every ``stride`` rows.

    Rows lie on a fixed grid (row ``n`` at ``n / rate_hz`` seconds since 1970), and a window ends where ``n + 1`` is a
    multiple of ``stride``, so that a restart moves neither. A row missing or invalid is held from the last one for at
    most ``max_hold_rows`` in a row and lowers the window's ``valid`` share; a window below ``min_valid``, or across a
    longer gap, is not stored, and is counted. An incomplete row waits for readings of ``late_rows`` rows after it.
    """

    name: Name = "window"
    length: Annotated[int, Meta(ge=1, le=limits.MAX_WINDOW_ROWS)] = 60
    stride: Annotated[int, Meta(ge=1, le=limits.MAX_WINDOW_ROWS)] = 1
    rate_hz: Annotated[float, Meta(ge=1e-6, le=100_000)] = 1.0
    max_hold_rows: Annotated[int, Meta(ge=0, le=1000)] = 3
    min_valid: Annotated[float, Meta(ge=0, le=1)] = 0.9
    late_rows: Annotated[int, Meta(ge=0, le=100)] = 1

    @property
    def period_ns(self) -> int:
        """Nanoseconds from one row to the next."""
        return round(1e9 / self.rate_hz)


class SourceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One MQTT topic and how its JSON payload maps to channels.

    ``payload``: ``value`` (the whole payload is one number, ``channel`` names it), ``object`` (``fields`` maps channel
    to a dotted path; none at all means that each channel stands under its own name; an array of objects is several
    rows), ``array`` (``order`` names the channels by position, the timestamp's left out; an array of arrays is several
    rows). ``timestamp`` is a dotted path (or, for arrays, the position as a decimal), none means time of arrival.
    ``topic`` may hold the wildcards ``+`` and ``#``; the first source that matches a message takes it.
    """

    topic: Annotated[str, Meta(min_length=1, max_length=256)]
    payload: Literal["value", "object", "array"] = "object"
    channel: Name | None = None
    fields: dict[Name, str] = {}
    order: tuple[Name, ...] = ()
    timestamp: str | None = None
    timestamp_unit: Literal["iso8601", "s", "ms", "us"] = "iso8601"
    qos: Literal[0, 1] = 1


class CsvSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a CSV file maps to the same channels; ``ignore`` names columns that an agent must never read (labels).

    ``columns`` maps channel to column title; none at all means that each channel stands under its own name.
    ``timestamp_format`` is ``iso8601``, ``s``, ``ms``, ``us`` or a ``strptime`` format; times without zone are UTC.
    """

    separator: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    timestamp: str = "timestamp"
    timestamp_format: str = "iso8601"
    columns: dict[Name, str] = {}
    ignore: tuple[str, ...] = ()


class ClockSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Readings dated further than ``max_skew_s`` from now are quarantined; None accepts any (replay, backfill).

    While the device's own clock stands before ``trusted_after_s`` (seconds since 1970; a board without a battery boots
    in 1970) skew cannot be judged: dated readings are taken and counted, and readings without a date follow
    ``undated``: ``keep`` dates them by the wrong clock, ``drop`` refuses them.
    """

    max_skew_s: Positive | None = None
    trusted_after_s: Annotated[float, Meta(ge=0)] = 1_735_689_600.0
    undated: Literal["keep", "drop"] = "keep"


class StoreSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the sample store; the oldest samples go first."""

    max_bytes: Annotated[int, Meta(ge=64 * limits.KIB)] = 256 * limits.MIB
    max_age_s: Positive | None = None


class DeviceProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an agent needs to know about its device."""

    name: Name
    version: Annotated[int, Meta(ge=1)]
    description: str = ""
    channel: Annotated[tuple[Channel, ...], Meta(max_length=limits.MAX_CHANNELS)] = ()
    window: WindowSpec = WindowSpec()
    source: tuple[SourceSpec, ...] = ()
    csv: CsvSpec | None = None
    tensor: tuple[TensorSpec, ...] = ()
    clock: ClockSpec = ClockSpec()
    store: StoreSpec = StoreSpec()
    runtimes: tuple[Literal["onnxruntime", "litert"], ...] = ("onnxruntime", "litert")
    precision: Literal["int8", "float32"] = "int8"
    baseline_threshold: Positive = 6.0

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in the order of a window's columns."""
        return tuple(channel.name for channel in self.channel)

    @property
    def window_spec(self) -> TensorSpec:
        """The spec of this profile's telemetry windows: float32 ``(length, channels)``."""
        return TensorSpec(self.window.name, "float32", (self.window.length, len(self.channel)), "window")


def read_profile(path: Path) -> DeviceProfile:
    """Return the profile at ``path``. Raises ConfigError as ``read_toml`` and ``check_profile``."""
    profile = read_toml(path, DeviceProfile)
    check_profile(profile, str(path))
    return profile


def check_profile(profile: DeviceProfile, where: str) -> None:
    """Raise ConfigError listing everything that contradicts itself, each with its key path."""
    from hedgerow.shared import profile_check

    profile_check.check_profile(profile, where)


def for_device(profile: DeviceProfile, device: str) -> DeviceProfile:
    """Return the profile with ``{device}`` in its topics replaced, so that one profile serves a whole fleet."""
    sources = tuple(
        msgspec.structs.replace(source, topic=source.topic.replace("{device}", device))
        for source in profile.source
    )
    return msgspec.structs.replace(profile, source=sources)
