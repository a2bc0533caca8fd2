"""Rules on single readings: range, order, duplicates, rate of change. Pure; one instance follows one stream."""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.edge_agent.telemetry.reading import Refusal
from hedgerow.shared.profile import Channel, WindowSpec


class ReadingRules:
    """Judges readings in order of arrival against their channel's range and its last accepted reading."""

    def __init__(self, channels: Sequence[Channel], window: WindowSpec) -> None:
        self._channels = tuple(channels)
        self._period_us = window.period_ns / 1000
        self._memory_us = self._period_us * (window.max_hold_rows + 1.5)
        self._last: list[tuple[int, float] | None] = [None] * len(self._channels)

    def reset(self) -> None:
        """Forget the past, because the stream's clock was set anew."""
        self._last = [None] * len(self._channels)

    def judge(self, position: int, time_us: int, value: float) -> Refusal | None:
        """Return why the reading is refused, or None."""
        channel = self._channels[position]
        if not channel.minimum <= value <= channel.maximum:
            detail = f"{channel.name} = {value:.6g} {channel.unit}, not in [{channel.minimum:g}, {channel.maximum:g}]"
            return Refusal("out-of-range", detail)
        last = self._last[position]
        return None if last is None else self._against_last(channel, time_us, value, last)

    def remember(self, position: int, time_us: int, value: float) -> None:
        """Take the reading as its channel's last accepted one."""
        self._last[position] = (time_us, value)

    def _against_last(
        self, channel: Channel, time_us: int, value: float, last: tuple[int, float]
    ) -> Refusal | None:
        elapsed_us = time_us - last[0]
        if elapsed_us == 0:
            return Refusal("duplicate", channel.name)
        if elapsed_us < 0:
            return Refusal(
                "out-of-order", f"{channel.name} is {-elapsed_us / 1e6:.3f} s older than its last reading"
            )
        # After a pause longer than a hold the last value says nothing about this one.
        if channel.max_step is None or elapsed_us > self._memory_us:
            return None
        allowed = channel.max_step * max(1, round(elapsed_us / self._period_us))
        if abs(value - last[1]) > allowed:
            return Refusal(
                "step", f"{channel.name} moved from {last[1]:.6g} to {value:.6g}, at most {allowed:.6g}"
            )
        return None
