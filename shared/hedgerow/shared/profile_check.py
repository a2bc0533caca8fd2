"""Whether a device profile makes sense as a whole: what types alone cannot say, each problem with its key path."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.profile import Channel, CsvSpec, DeviceProfile, SourceSpec
from hedgerow.shared.topics import filter_problem
from hedgerow.shared.units import UNITS, unit_hint


def check_profile(profile: DeviceProfile, where: str) -> None:
    """Raise ConfigError listing every problem of ``profile``; ``where`` names its source."""
    problems = list(_problems(profile))
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))


def _problems(profile: DeviceProfile) -> Iterator[str]:
    if not profile.channel and not profile.tensor:
        yield "channel: a profile needs at least one [[channel]] or [[tensor]]"
    for position, channel in enumerate(profile.channel):
        yield from _channel_problems(channel, f"channel[{position}]")
    yield from _repeated("channel", "name", profile.channels)
    yield from _window_problems(profile)
    yield from _source_problems(profile)
    if profile.csv is not None:
        yield from _csv_problems(profile.csv, profile.channels)
    names = [spec.name for spec in profile.tensor]
    yield from _repeated("tensor", "name", [profile.window.name, *names] if profile.channel else names)
    if not profile.runtimes:
        yield "runtimes: name at least one"
    yield from _repeated("runtimes", "entry", profile.runtimes)


def _channel_problems(channel: Channel, path: str) -> Iterator[str]:
    numbers = {
        "minimum": channel.minimum,
        "maximum": channel.maximum,
        "nominal": channel.nominal,
        "spread": channel.spread,
    }
    infinite = [key for key, value in numbers.items() if not math.isfinite(value)]
    for key in infinite:
        yield f"{path}.{key}: must be a finite number"
    if channel.unit not in UNITS:
        hint = unit_hint(channel.unit)
        advice = f"did you mean {hint!r}?" if hint else "allowed are " + " ".join(sorted(UNITS))
        yield f"{path}.unit: {channel.unit!r} is not a known unit; {advice}"
    if infinite:
        return
    if channel.minimum >= channel.maximum:
        yield f"{path}.minimum: {channel.minimum:g} is not below maximum {channel.maximum:g}"
    elif not channel.minimum <= channel.nominal <= channel.maximum:
        yield f"{path}.nominal: {channel.nominal:g} lies outside [{channel.minimum:g}, {channel.maximum:g}]"
    elif channel.spread > channel.maximum - channel.minimum:
        yield f"{path}.spread: {channel.spread:g} is wider than the range [{channel.minimum:g}, {channel.maximum:g}]"


def _window_problems(profile: DeviceProfile) -> Iterator[str]:
    if not profile.channel:
        return
    try:
        nbytes = profile.window_spec.nbytes
    except ValueError as error:
        yield f"window: {error}"
        return
    if nbytes > profile.store.max_bytes // 8:
        yield (
            f"store.max_bytes: {profile.store.max_bytes} holds fewer than eight windows of {nbytes} bytes; "
            "raise it or shorten window.length"
        )
    if profile.window.max_hold_rows >= profile.window.length > 1:
        yield (
            f"window.max_hold_rows: {profile.window.max_hold_rows} would let a window of {profile.window.length} rows "
            "hold no reading at all"
        )


def _source_problems(profile: DeviceProfile) -> Iterator[str]:
    known = profile.channels
    fed: list[str] = []
    for position, source in enumerate(profile.source):
        path = f"source[{position}]"
        problem = filter_problem(source.topic)
        if problem:
            yield f"{path}.topic: {source.topic!r} {problem}"
        yield from _payload_problems(source, path)
        named = source_channels(source, known)
        yield from _unknown(named, known, f"{path}.{_KEY[source.payload]}")
        fed += sorted(set(named))
    yield from _repeated("source", "topic", [source.topic for source in profile.source])
    yield from _repeated("source", "channel", fed)
    if profile.source:
        for name in known:
            if name not in fed:
                yield f"channel {name!r}: no source feeds it, so no window could ever be complete"


_KEY = {"value": "channel", "object": "fields", "array": "order"}


def source_channels(source: SourceSpec, known: Iterable[str]) -> tuple[str, ...]:
    """Return the channels that a source feeds; an object without ``fields`` feeds all that are ``known``."""
    match source.payload:
        case "value":
            return () if source.channel is None else (source.channel,)
        case "array":
            return source.order
        case _:
            return tuple(source.fields) or tuple(known)


def _payload_problems(source: SourceSpec, path: str) -> Iterator[str]:
    if source.payload == "value" and source.channel is None:
        yield f'{path}.channel: payload = "value" needs the channel that the number belongs to'
    if source.payload == "array" and not source.order:
        yield f'{path}.order: payload = "array" needs the channels in the order of their positions'
    if source.payload != "value" and source.channel is not None:
        yield f'{path}.channel: only payload = "value" has one'
    if source.payload != "object" and source.fields:
        yield f'{path}.fields: only payload = "object" has them'
    if source.payload != "array" and source.order:
        yield f'{path}.order: only payload = "array" has it'
    yield from _repeated(path, "order", source.order)
    yield from _timestamp_problems(source, path)
    for channel, dotted in source.fields.items():
        if not all(dotted.split(".")):
            yield f"{path}.fields.{channel}: {dotted!r} is not a dotted path"


def _timestamp_problems(source: SourceSpec, path: str) -> Iterator[str]:
    stamp = source.timestamp
    if stamp is None:
        return
    if source.payload == "value":
        yield f'{path}.timestamp: payload = "value" has no room for one; leave it out (time of arrival)'
    elif source.payload == "array" and not _is_position(stamp, len(source.order)):
        yield f"{path}.timestamp: {stamp!r} is not a position in 0 … {len(source.order)}"
    elif not all(stamp.split(".")):
        yield f"{path}.timestamp: {stamp!r} is not a dotted path"


def _is_position(stamp: str, last: int) -> bool:
    return stamp.isascii() and stamp.isdecimal() and len(stamp) <= len(str(last)) and int(stamp) <= last


def _csv_problems(csv: CsvSpec, known: tuple[str, ...]) -> Iterator[str]:
    yield from _unknown(tuple(csv.columns), known, "csv.columns")
    read = set(csv.columns.values()) | {csv.timestamp}
    for column in sorted(read & set(csv.ignore)):
        yield f"csv.ignore: column {column!r} is also read; a label must never reach an agent"
    yield from _repeated("csv.columns", "column", list(csv.columns.values()))
    missing = [name for name in known if csv.columns and name not in csv.columns]
    if missing:
        yield f"csv.columns: no column for channel {', '.join(missing)}"


def _unknown(named: Iterable[str], known: Iterable[str], path: str) -> Iterator[str]:
    there = tuple(known)
    for name in named:
        if name not in there:
            yield f"{path}: {name!r} is not a channel; there are {', '.join(there) or 'none'}"


def _repeated(path: str, what: str, names: Iterable[str]) -> Iterator[str]:
    for name, times in Counter(names).items():
        if times > 1:
            yield f"{path}: {what} {name!r} appears {times} times"
