"""Frames come out as they went in, however the network cuts them; a bad length is refused before it is believed."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError
from hedgerow.shared.fleetwire import FrameDecoder, frame_head

FRAMES = st.lists(st.binary(max_size=40), max_size=8)


def encoded(frames: list[bytes]) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=12))
def test_frames_come_out_whole_and_in_order_wherever_the_stream_is_cut(
    frames: list[bytes], cuts: list[int]
) -> None:
    decoder = FrameDecoder()

    found = [frame for piece in pieces(encoded(frames), cuts) for frame in decoder.feed(piece)]

    assert found == frames
    decoder.finish()


@given(FRAMES)
def test_byte_by_byte_is_no_different(frames: list[bytes]) -> None:
    decoder = FrameDecoder()

    assert [frame for byte in encoded(frames) for frame in decoder.feed(bytes([byte]))] == frames
    decoder.finish()


@given(FRAMES.filter(bool), st.integers(1, 10_000))
def test_a_stream_that_ends_early_is_told_so_unless_it_ends_between_frames(
    frames: list[bytes], cut: int
) -> None:
    data = encoded(frames)
    kept = data[: len(data) - 1 - cut % len(data)]
    ends = {len(encoded(frames[:n])) for n in range(len(frames) + 1)}
    decoder = FrameDecoder()
    found = list(decoder.feed(kept))

    assert found == frames[: len(found)]
    if len(kept) in ends:
        decoder.finish()
    else:
        with pytest.raises(ContentError, match="ends inside a frame"):
            decoder.finish()


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_no_bytes_raise_anything_but_a_content_error(chunks: list[bytes]) -> None:
    decoder = FrameDecoder(max_frame_bytes=64, max_frames=4)
    found: list[bytes] = []
    with contextlib.suppress(ContentError):
        for chunk in chunks:
            found += decoder.feed(chunk)
        decoder.finish()

    assert len(found) <= 4
    assert all(len(frame) <= 64 for frame in found)


def test_an_announced_frame_beyond_the_bound_is_refused_from_its_head_alone() -> None:
    decoder = FrameDecoder(max_frame_bytes=10)
    assert list(decoder.feed(frame_head(10) + b"x" * 10)) == [b"x" * 10]

    with pytest.raises(ContentError, match="a frame of 11 bytes; at most 10 are read"):
        list(decoder.feed(frame_head(11)))


def test_the_largest_length_that_four_bytes_can_say_is_refused() -> None:
    with pytest.raises(ContentError, match="a frame of 4294967295 bytes"):
        list(FrameDecoder().feed(b"\xff" * 4))


@pytest.mark.parametrize("frame", [b"", b"x"])
def test_no_more_frames_than_allowed_are_taken_empty_ones_included(frame: bytes) -> None:
    decoder = FrameDecoder(max_frames=3)
    assert list(decoder.feed(encoded([frame] * 3))) == [frame] * 3

    with pytest.raises(ContentError, match="too many frames"):
        list(decoder.feed(encoded([frame])))


def test_frames_before_a_bad_one_are_given_out() -> None:
    decoder = FrameDecoder(max_frame_bytes=4)
    stream = decoder.feed(encoded([b"good"]) + frame_head(5) + b"worse")

    assert next(stream) == b"good"
    with pytest.raises(ContentError):
        next(stream)


def test_nothing_at_all_is_an_empty_stream() -> None:
    decoder = FrameDecoder()

    assert list(decoder.feed(b"")) == []
    decoder.finish()


def test_a_decoder_holds_one_frame_at_most() -> None:
    """Of a million small frames in one piece, each is gone once it is taken."""
    decoder = FrameDecoder(max_frames=10**6)
    data = encoded([b"abc"] * 10_000)

    for frame in decoder.feed(data):
        assert frame == b"abc"
        assert decoder._have == 0
        assert decoder._pieces == []


@pytest.mark.parametrize("n_bytes", [0, 1, 255, 256, 2**31, 2**32 - 1])
def test_a_head_is_four_bytes_big_endian(n_bytes: int) -> None:
    assert len(frame_head(n_bytes)) == 4
    assert int.from_bytes(frame_head(n_bytes), "big") == n_bytes


@pytest.mark.parametrize("n_bytes", [-1, 2**32])
def test_a_length_that_no_head_can_say_is_a_mistake_of_the_caller(n_bytes: int) -> None:
    with pytest.raises(OverflowError):
        frame_head(n_bytes)


def test_a_chunk_with_its_overhead_fits_a_frame_and_inline_payloads_fit_a_chunk() -> None:
    assert fleetwire.INLINE_PAYLOAD_BYTES <= fleetwire.CHUNK_BYTES < fleetwire.MAX_FRAME_BYTES < 2**32
