"""The last known time only moves forward, and a clock behind it is not believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.updater.clock import FLOOR_US, SLACK_US, advance, is_behind, read_known
from hedgerow.edge_agent.updater.result import EXIT_OF, ExitCode, UpdateResult, decode_result, encode_result
from hedgerow.shared.errors import ContentError

LATER = FLOOR_US + 10**12


@pytest.mark.parametrize("now_us", [0, 10**12, FLOOR_US - SLACK_US - 1])
def test_a_clock_in_1970_is_behind_even_on_a_device_that_knows_no_time(now_us: int) -> None:
    assert is_behind(now_us, 0)


def test_a_clock_that_was_set_back_by_moments_is_believed() -> None:
    assert not is_behind(LATER - SLACK_US, LATER)
    assert is_behind(LATER - SLACK_US - 1, LATER)


def test_the_record_never_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    advance(path, LATER)
    advance(path, LATER - 1)

    assert read_known(path) == LATER


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"last_known_us": "x"}', b'{"last_known_us": -5}', b"\xff" * 100]
)
def test_a_damaged_record_is_the_floor(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clock.json"
    path.write_bytes(content)

    assert read_known(path) == FLOOR_US
    advance(path, LATER)
    assert read_known(path) == LATER


@given(st.lists(st.integers(0, 2 * LATER), max_size=8))
def test_what_is_known_is_the_largest_ever_seen(times: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clock.json"
        for now_us in times:
            advance(path, now_us)

        assert read_known(path) == max([FLOOR_US, *times])


def test_every_reason_has_an_exit_code_and_only_two_are_success() -> None:
    good = {reason for reason, code in EXIT_OF.items() if code is ExitCode.STAGED}

    assert good == {"staged", "already-here"}
    assert set(EXIT_OF.values()) == set(ExitCode)


def test_refusals_are_final_and_troubles_pass() -> None:
    def retry(reason: object) -> bool:
        return UpdateResult(reason, "m", 1, "a").retry  # type: ignore[arg-type]

    assert not any(
        retry(reason) for reason in ("untrusted", "expired", "mismatch", "rollback-refused", "usage")
    )
    assert all(retry(reason) for reason in ("unreachable", "busy", "too-slow", "disk-full", "clock-behind"))


def test_a_result_survives_its_line() -> None:
    result = UpdateResult("staged", "pump", 3, "a" * 64, "x\ny", "/f", 5, 6, 0.7)

    assert decode_result(b"noise\n" + encode_result(result)) == result


@pytest.mark.parametrize("output", [b"", b"\n\n", b"{}", b"null", b"{" * 20_000])
def test_no_result_is_told_so(output: bytes) -> None:
    with pytest.raises(ContentError, match="printed no result"):
        decode_result(output)
