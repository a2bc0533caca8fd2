"""Numbers and times as people read them."""

from __future__ import annotations

import pytest

from hedgerow.server.dashboard import formats


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (70_000_000, "70.0 MB"), (10**16, "10000.0 TB")],
)
def test_sizes(n: int, text: str) -> None:
    assert formats.size(n) == text


@pytest.mark.parametrize(("n", "text"), [(0, "0"), (12345, "12345"), (None, "–")])
def test_counts(n: int | None, text: str) -> None:
    assert formats.whole(n) == text


def test_a_size_that_is_withheld_is_a_dash() -> None:
    assert formats.size(None) == "–"


def test_times_are_utc_and_none_is_a_dash() -> None:
    assert formats.when(1_767_323_045_000_000) == "2026-01-02 03:04:05 UTC"
    assert formats.when(None) == "–"


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (2.34567, "2.35"), (0.0, "0")])
def test_numbers(value: float | None, text: str) -> None:
    assert formats.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (40.4, "40 µs"), (1500.0, "1.5 ms")])
def test_microseconds(value: float | None, text: str) -> None:
    assert formats.micros(value) == text
