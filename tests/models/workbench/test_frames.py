from __future__ import annotations

import io

import pytest

from hedgerow.models.workbench import frames
from hedgerow.shared.errors import ContentError


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 100_000])
def test_what_is_written_is_read(data: bytes) -> None:
    pipe = io.BytesIO()
    frames.write_frame(pipe, data)
    frames.write_frame(pipe, b"next")
    pipe.seek(0)

    assert frames.read_frame(pipe) == data
    assert frames.read_frame(pipe) == b"next"
    assert frames.read_frame(pipe) is None


def test_an_announced_length_beyond_the_bound_is_refused_before_anything_is_read() -> None:
    pipe = io.BytesIO(frames.HEADER.pack(frames.MAX_FRAME_BYTES + 1) + b"x" * 10)

    with pytest.raises(ContentError, match="announces"):
        frames.read_frame(pipe)
    assert pipe.tell() == frames.HEADER.size


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_a_pipe_that_ends_inside_a_frame_is_an_error(cut: int) -> None:
    pipe = io.BytesIO()
    frames.write_frame(pipe, b"abcd")

    with pytest.raises(ContentError, match="ended"):
        frames.read_frame(io.BytesIO(pipe.getvalue()[:cut]))


def test_an_over_size_frame_is_not_written() -> None:
    with pytest.raises(ContentError, match="at most"):
        frames.header(frames.MAX_FRAME_BYTES + 1)
