"""Frames on a pipe: four bytes of length, big endian, then that many bytes; bounded before anything is read."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError

MAX_FRAME_BYTES: Final = limits.MAX_UPDATE_BYTES + limits.MIB
HEADER: Final = struct.Struct(">I")


def header(length: int) -> bytes:
    """Return the header of a frame. Raises ContentError if it would be over-size."""
    if length > MAX_FRAME_BYTES:
        raise ContentError(f"a message of {length} bytes to or from the workbench; at most {MAX_FRAME_BYTES}")
    return HEADER.pack(length)


def length_of(head: bytes) -> int:
    """Return the length that a frame's header announces. Raises ContentError if it is over-size."""
    length = int(HEADER.unpack(head)[0])
    if length > MAX_FRAME_BYTES:
        raise ContentError(f"the workbench pipe announces {length} bytes; at most {MAX_FRAME_BYTES}")
    return length


def read_frame(pipe: BinaryIO) -> bytes | None:
    """Return the next frame, None at a clean end. Raises ContentError if the pipe ends inside a frame."""
    head = pipe.read(HEADER.size)
    if not head:
        return None
    if len(head) < HEADER.size:
        raise ContentError("the workbench pipe ended inside a header")
    length = length_of(head)
    data = pipe.read(length)
    if len(data) < length:
        raise ContentError(f"the workbench pipe ended after {len(data)} of {length} bytes")
    return data


def write_frame(pipe: BinaryIO, data: bytes) -> None:
    """Write one frame and flush."""
    pipe.write(header(len(data)))
    pipe.write(data)
    pipe.flush()
