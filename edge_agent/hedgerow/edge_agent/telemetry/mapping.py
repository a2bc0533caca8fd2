"""From a JSON payload to rows, by a profile's source: pure, bounded, and never raising on what a broker may send."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from hedgerow.edge_agent.telemetry.reading import Decoded, Refusal, Row
from hedgerow.edge_agent.telemetry.timestamps import parse_time
from hedgerow.shared import limits
from hedgerow.shared.profile import SourceSpec

_ABSENT: Final = object()
_NOT_A_NUMBER_TEXTS: Final = frozenset({b"nan", b"inf", b"-inf", b"+inf", b"infinity", b"-infinity"})


class Mapping:
    """One source, compiled against the channel order of its profile."""

    def __init__(self, source: SourceSpec, channels: Sequence[str]) -> None:
        self.source = source
        self._position = {name: position for position, name in enumerate(channels)}
        self._names = tuple(channels)
        paths = source.fields or {name: name for name in channels}
        self._paths = tuple(
            (self._position[name], (path,) if not source.fields else tuple(path.split(".")))
            for name, path in paths.items()
            if source.payload == "object"
        )
        self._order = tuple(self._position[name] for name in source.order)
        self._stamp = tuple(source.timestamp.split(".")) if source.timestamp else ()

    def decode(self, payload: bytes, arrived_us: int) -> Decoded:
        """Return the rows of ``payload`` and a refusal for all that is not one.

        ``arrived_us`` dates rows where the source names no timestamp.
        """
        if len(payload) > limits.MAX_MQTT_PAYLOAD_BYTES:
            detail = f"{len(payload)} bytes; at most {limits.MAX_MQTT_PAYLOAD_BYTES}"
            return Decoded(refusals=(Refusal("oversized", detail),))
        try:
            value = msgspec.json.decode(payload)
        except RecursionError:
            return Decoded(refusals=(Refusal("too-deep", "nested too deeply"),))
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
        ) as error:  # msgspec passes bad UTF-8 in a text on as it is
            return Decoded(refusals=(_malformed(payload, error),))
        rows: list[Row] = []
        refusals: list[Refusal] = []
        for item in self._items(value):
            row = self._row(item, arrived_us, refusals)
            if row is not None:
                rows.append(row)
        return Decoded(tuple(rows), tuple(refusals))

    def _items(self, value: Any) -> Sequence[Any]:
        if self.source.payload == "object" and isinstance(value, list):
            return value
        if (
            self.source.payload == "array"
            and isinstance(value, list)
            and value
            and isinstance(value[0], list)
        ):
            return value
        return (value,)

    def _row(self, item: Any, arrived_us: int, refusals: list[Refusal]) -> Row | None:
        match self.source.payload:
            case "value":
                pairs = self._of_value(item)
                stamp = _ABSENT
            case "object":
                if not isinstance(item, dict):
                    refusals.append(Refusal("wrong-shape", f"expected an object, got {_kind(item)}"))
                    return None
                refusals.extend(self._strangers(item))
                pairs = ((position, _lookup(item, path)) for position, path in self._paths)
                stamp = _lookup(item, self._stamp) if self._stamp else _ABSENT
            case _:
                size = len(self._order) + bool(self._stamp)
                if not isinstance(item, list) or len(item) != size:
                    given = f"{len(item)} values" if isinstance(item, list) else _kind(item)
                    refusals.append(
                        Refusal("wrong-shape", f"expected an array of {size} values, got {given}")
                    )
                    return None
                pairs, stamp = self._of_array(item)
        return self._dated(pairs, stamp, arrived_us, refusals)

    def _of_value(self, item: Any) -> Iterator[tuple[int, Any]]:
        if self.source.channel is not None:
            yield self._position[self.source.channel], item

    def _of_array(self, item: list[Any]) -> tuple[Iterator[tuple[int, Any]], Any]:
        if not self._stamp:
            return zip(self._order, item, strict=True), _ABSENT
        at = int(self._stamp[0])
        return zip(self._order, item[:at] + item[at + 1 :], strict=True), item[at]

    def _strangers(self, item: dict[str, Any]) -> Iterator[Refusal]:
        """Yield a refusal per key that is no channel, where the channels stand under their own names."""
        if self.source.fields:
            return
        for key in item:
            if key not in self._position and key not in self._stamp[:1]:
                yield Refusal("unknown-channel", f"no channel {key[:64]!r}")

    def _dated(
        self, pairs: Iterator[tuple[int, Any]], stamp: Any, arrived_us: int, refusals: list[Refusal]
    ) -> Row | None:
        time_us = arrived_us
        if self._stamp:
            try:
                if stamp is _ABSENT:
                    raise ValueError("is not there")
                time_us = parse_time(stamp, self.source.timestamp_unit)
            except ValueError as error:
                refusals.append(
                    Refusal("bad-timestamp", f"timestamp {self.source.timestamp!r} {error}"[:200])
                )
                return None
        values: list[tuple[int, float]] = []
        for position, raw in pairs:
            number = _number(raw)
            if number is not None:
                values.append((position, number))
            elif raw is None or raw is _ABSENT:
                refusals.append(Refusal("missing", self._names[position]))
            else:
                refusals.append(Refusal("not-a-number", f"{self._names[position]} is {_kind(raw)}"))
        return Row(time_us, tuple(values)) if values else None


def _malformed(payload: bytes, error: Exception) -> Refusal:
    if payload.strip().lower() in _NOT_A_NUMBER_TEXTS:
        return Refusal("not-a-number", payload.strip().decode("ascii"))
    return Refusal("malformed", str(error)[:200])


def _lookup(item: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(item, dict):
            return _ABSENT
        item = item.get(key, _ABSENT)
    return item


def _number(raw: Any) -> float | None:
    """Return a JSON number as a finite float, else None; true and false are no numbers."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        number = float(raw)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "an object", list: "an array", str: "a text", type(None): "null"}
    return names.get(type(value), "a number" if _number(value) is not None else "a number out of bounds")
