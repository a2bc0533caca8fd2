"""``hedgerow`` with a gateway that writes down what devices send: ``python -m tests.support.recording_server FILE server run …``.

Everything else is the server as it is; a request is noted before the server reads its body.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from starlette.types import Message, Receive, Scope, Send

from hedgerow.server.gateway import listener
from hedgerow.server.gateway.front import Front
from hedgerow.shared import cli, fleetwire


class Recorded(msgspec.Struct):
    """One request of a device: who (None before it has a certificate), what, with which headers and body."""

    device: str | None
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


def read_recorded(file: Path) -> list[Recorded]:
    """Return what was written down, in the order in which bodies ended."""
    data = file.read_bytes()
    decoder = fleetwire.FrameDecoder(max_frame_bytes=1 << 30, max_frames=1_000_000)
    return [msgspec.msgpack.decode(frame, type=Recorded) for frame in decoder.feed(data)]


class RecordingFront(Front):
    """The gateway's front, with a note of each request that it served to a device."""

    file: Path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces: list[bytes] = []

        async def heard() -> Message:
            event = await receive()
            pieces.append(event.get("body", b""))
            return event

        try:
            await super().__call__(scope, heard, send)
        finally:
            if scope["type"] == "http":
                self._note(scope, b"".join(pieces))

    def _note(self, scope: Scope, body: bytes) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        one = Recorded(scope.get("hedgerow.device"), scope["method"], scope["path"], query, headers, body)
        data = msgspec.msgpack.encode(one)
        with self.file.open("ab") as file:
            file.write(fleetwire.frame_head(len(data)) + data)


def main() -> int:
    """Run the command after the file's name."""
    RecordingFront.file = Path(sys.argv[1])
    setattr(listener, "Front", RecordingFront)  # noqa: B010 - the name is not for others to set
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    raise SystemExit(main())
