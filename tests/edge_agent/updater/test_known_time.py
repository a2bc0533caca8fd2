"""A clock behind the last known time is not believed; a result says in one line what an update came to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.clock import TOLERANCE_US
from hedgerow.edge_agent.updater.clock import FLOOR_US, is_behind
from hedgerow.edge_agent.updater.result import EXIT_OF, ExitCode, UpdateResult, decode_result, encode_result
from hedgerow.shared.errors import ContentError

LATER = FLOOR_US + 10**12


@pytest.mark.parametrize("now_us", [0, 10**12, FLOOR_US - TOLERANCE_US - 1])
def test_a_clock_in_1970_is_behind_even_on_a_device_that_knows_no_time(now_us: int) -> None:
    assert is_behind(now_us, 0)


def test_a_clock_that_was_set_back_by_moments_is_believed() -> None:
    assert not is_behind(LATER - TOLERANCE_US, LATER)
    assert is_behind(LATER - TOLERANCE_US - 1, LATER)


@settings(deadline=None)
@given(st.integers(0, 2 * LATER), st.integers(0, 2 * LATER))
def test_no_clock_that_is_believed_stands_minutes_before_what_is_known(now_us: int, known_us: int) -> None:
    if not is_behind(now_us, known_us):
        assert now_us >= max(known_us, FLOOR_US) - TOLERANCE_US


def test_every_reason_has_an_exit_code_and_only_two_are_success() -> None:
    good = {reason for reason, code in EXIT_OF.items() if code is ExitCode.STAGED}

    assert good == {"staged", "already-here"}
    assert set(EXIT_OF.values()) == set(ExitCode)


def test_refusals_are_final_and_troubles_pass() -> None:
    def retry(reason: object) -> bool:
        return UpdateResult(reason, "m", 1, "a").retry  # type: ignore[arg-type]

    final = ("untrusted", "not-listed", "mismatch", "rollback-refused", "usage", "crashed")
    passing = ("unreachable", "busy", "too-slow", "disk-full", "storage", "clock-behind", "expired")

    assert not any(retry(reason) for reason in final)
    assert all(retry(reason) for reason in passing)


def test_a_result_survives_its_line() -> None:
    result = UpdateResult("staged", "pump", 3, "a" * 64, "x\ny", "/f", 5, 6, 0.7)

    assert decode_result(b"noise\n" + encode_result(result)) == result


@pytest.mark.parametrize("output", [b"", b"\n\n", b"{}", b"null", b"{" * 20_000])
def test_no_result_is_told_so(output: bytes) -> None:
    with pytest.raises(ContentError, match="printed no result"):
        decode_result(output)
