"""How a trainer and the server talk in a round: paths, headers, record names, frames.

A body of the batched routes is a sequence of frames, each a 32-bit big-endian length and that many bytes: first one
Flower message (protobuf), then the Flower objects it names, each distinct object once, children before parents.
One request then carries what Flower's own routes need one request an object for.
"""

from __future__ import annotations

from collections.abc import Iterator

from hedgerow.shared.errors import ContentError

NEXT_PATH = "/v1/device/round/next"
REPLY_PATH = "/v1/device/round/reply"
MODELS_PATH = "/v1/device/models/"

JOB_HEADER = "hedgerow-job"
ACTIVATION_HEADER = "hedgerow-activation"
MESSAGE_HEADER = "hedgerow-message"
FRAMES_TYPE = "application/vnd.hedgerow.frames"

RECORD = "hedgerow"
INSTRUCTION_KEY = "instruction"
HEADER_KEY = "header"
PAYLOAD_KEY = "payload"
UPDATE_RECORD = "update"
UPDATE_ARRAY = "packed"
PACKED_STYPE = "hedgerow.packed"

INLINE_PAYLOAD_BYTES = 64 * 1024
CHUNK_BYTES = 1024 * 1024
MAX_FRAME_BYTES = CHUNK_BYTES + 64 * 1024
MAX_FRAMES = 4096
MAX_WAIT_S = 45.0

_LENGTH_BYTES = 4


def frame_head(n_bytes: int) -> bytes:
    """Return the length prefix of a frame of ``n_bytes``."""
    return n_bytes.to_bytes(_LENGTH_BYTES, "big")


class FrameDecoder:
    """Cuts a stream of bytes into frames; holds at most one frame, and refuses one beyond ``max_frame_bytes``."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES, max_frames: int = MAX_FRAMES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._frames_left = max_frames
        self._pieces: list[bytes] = []
        self._have = 0
        self._want = _LENGTH_BYTES
        self._in_head = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that ``data`` completes. Raises ContentError for too large a frame or too many."""
        start = 0
        while start < len(data):
            piece = data[start : start + self._want - self._have]
            start += len(piece)
            self._pieces.append(piece)
            self._have += len(piece)
            if self._have == self._want:
                whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces, self._have = [], 0
                if not self._in_head:
                    self._in_head, self._want = True, _LENGTH_BYTES
                    yield whole
                elif self._begin(int.from_bytes(whole, "big")):
                    yield b""

    def _begin(self, n_bytes: int) -> bool:
        """Note the length of the next frame; True where it is empty, and so complete."""
        if n_bytes > self._max_frame_bytes:
            raise ContentError(f"a frame of {n_bytes} bytes; at most {self._max_frame_bytes} are read")
        if self._frames_left == 0:
            raise ContentError("too many frames in one body")
        self._frames_left -= 1
        self._in_head, self._want = n_bytes == 0, n_bytes or _LENGTH_BYTES
        return n_bytes == 0

    def finish(self) -> None:
        """Raise ContentError if the stream ended inside a frame."""
        if self._have or not self._in_head:
            raise ContentError("the body ends inside a frame")
