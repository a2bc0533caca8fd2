"""Hostile and unlucky uploads on the batched route: each is refused with a reason and leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.raw_device import RawDevice
from tests.support.round_parts import JOB, header, in_thread, instruction, node, settle, update

from hedgerow.edge_agent.trainer.fleet import FleetNode
from hedgerow.edge_agent.trainer.fleet.objects import Handle, pack_reply
from hedgerow.server.flower import FlowerLink, LinkConfig
from hedgerow.server.flower.messages import decode_packed
from hedgerow.shared import fleetwire
from hedgerow.shared.errors import ContentError
from hedgerow.simulations.bench.bed import Bed

N = 100_000


class Upload:
    """An active device with an instruction that it was handed, and its honest reply in frames."""

    def __init__(self, link: FlowerLink, raw: RawDevice, member: FleetNode) -> None:
        self.link, self.raw, self.member = link, raw, member
        self.message_id = ""
        self.frames: list[bytes] = []

    async def ask(self) -> None:
        self.message_id = await self.link.send(JOB, "a", instruction(N))
        got = await in_thread(self.member.receive, 30.0)
        assert got is not None
        payload = update(N)
        self.handle: Handle = got[1]
        body = b"".join(
            bytes(part) for part in pack_reply(self.member._node_id, got[1], header(got[0], payload), payload)
        )
        self.frames = list(fleetwire.FrameDecoder().feed(body))

    def headers(self) -> dict[str, str]:
        return {**self.member._calls._who, fleetwire.MESSAGE_HEADER: self.message_id}

    async def post(self, frames: list[bytes]) -> tuple[int, bytes]:
        body = b"".join(fleetwire.frame_head(len(frame)) + frame for frame in frames)
        return await in_thread(self.raw.request, "POST", fleetwire.REPLY_PATH, body, self.headers())

    async def honest(self) -> None:
        """The same instruction can still be answered, once."""
        assert (await self.post(self.frames))[0] == 200
        reply = await self.link.next_reply(JOB, 5.0)
        assert reply is not None
        assert b"".join(reply.payload) == update(N)
        await self.link.release(reply)
        assert len(self.link.state.object_store) == 0
        assert self.link.budget.held_bytes == 0


def run(tmp_path: Path, scenario: Callable[[Upload], Any], config: LinkConfig | None = None) -> None:
    async def serve() -> None:
        bed = Bed(tmp_path)
        async with bed.serve(config) as (link, url):
            await link.open_job(JOB)
            member = node(url, bed.identity("a"))
            await in_thread(member.activate, 30.0)
            upload = Upload(link, RawDevice(url, bed.identity("a")), member)
            await upload.ask()
            await scenario(upload)
            await in_thread(member.close)

    asyncio.run(serve())


def altered(upload: Upload, change: str) -> list[bytes]:
    head, *objects = upload.frames
    push = PushMessagesRequest.FromString(head)
    match change:
        case "no message":
            return [PushMessagesRequest().SerializeToString(), *objects]
        case "garbage message":
            return [b"\xff\xfe" * 20, *objects]
        case "an object missing":
            return upload.frames[:-1]
        case "an object altered":
            return [head, objects[0][:-1] + bytes([objects[0][-1] ^ 1]), *objects[1:]]
        case "an object too many":
            return [*upload.frames, b"ArrayChunk  1\x00x"]
        case "objects in another order":
            return [head, *reversed(objects)]
        case "no frames":
            return []
        case "another node":
            push.messages_list[0].metadata.src_node_id += 1
        case "another run":
            push.messages_list[0].metadata.run_id += 1
        case "another instruction":
            push.messages_list[0].metadata.reply_to_message_id = "0" * 64
        case "a foreign tree":
            push.message_object_trees[0].object_id = hashlib.sha256(b"").hexdigest()
        case "a name that is no hash":
            push.message_object_trees[0].children[0].object_id = "../../etc"
        case "two messages":
            push.messages_list.append(push.messages_list[0])
    return [push.SerializeToString(), *objects]


@pytest.mark.parametrize(
    "change",
    [
        "no message",
        "garbage message",
        "an object missing",
        "an object altered",
        "an object too many",
        "objects in another order",
        "no frames",
        "another node",
        "another run",
        "another instruction",
        "a foreign tree",
        "a name that is no hash",
        "two messages",
    ],
)
def test_a_malformed_reply_is_refused_with_a_reason_and_the_honest_one_still_counts(
    tmp_path: Path, change: str
) -> None:
    async def scenario(upload: Upload) -> None:
        status, body = await upload.post(altered(upload, change))
        if change == "an object too many":
            assert status in (200, 400), body
        else:
            assert status == 400, body
            assert b"error" in body
            assert upload.link.counters["malformed"] == 1
            await upload.honest()

    run(tmp_path, scenario)


def test_a_reply_of_consistent_objects_without_a_header_becomes_an_error(tmp_path: Path) -> None:
    def get(object_id: str) -> bytes | None:
        return {"m": b"Message r 0\x00", "r": b"RecordDict  2\x00{}"}.get(object_id)

    with pytest.raises(ContentError, match="malformed"):
        decode_packed(get, "m")
    with pytest.raises(ContentError, match="missing"):
        decode_packed(get, "nothing")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["m", "r", "c", "u", "x"]), st.binary(max_size=80), max_size=5))
def test_any_bytes_in_the_store_decode_or_are_refused(objects: dict[str, bytes]) -> None:
    contents = {"m": b"Message r 0\x00", "r": b'RecordDict  24\x00{"hedgerow":"c","update":"u"}', **objects}
    with pytest.raises(ContentError):
        decode_packed(contents.get, "m")


def test_a_connection_that_breaks_inside_an_upload_frees_its_slot_and_the_device_tries_again(
    tmp_path: Path,
) -> None:
    async def scenario(upload: Upload) -> None:
        def break_off() -> None:
            connected = upload.raw.connect()
            fields = {"host": "x", "content-length": "400400", **upload.headers()}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            first = fleetwire.frame_head(len(upload.frames[0])) + upload.frames[0]
            connected.sendall(f"POST {fleetwire.REPLY_PATH} HTTP/1.1\r\n{head}\r\n".encode() + first)
            time.sleep(0.1)
            connected.close()

        await in_thread(break_off)
        await settle(lambda: upload.link.budget.held_bytes == 0)
        await upload.honest()

    run(tmp_path, scenario)


def test_an_upload_that_stalls_loses_its_slot(tmp_path: Path) -> None:
    async def scenario(upload: Upload) -> None:
        connected = await in_thread(upload.raw.connect)
        fields = {"host": "x", "content-length": "400400", **upload.headers()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        connected.sendall(f"POST {fleetwire.REPLY_PATH} HTTP/1.1\r\n{head}\r\nabc".encode())
        answer = await in_thread(connected.recv, 4096)
        assert b" 408 " in answer
        connected.close()
        await settle(lambda: upload.link.budget.held_bytes == 0)
        await upload.honest()

    run(tmp_path, scenario, LinkConfig(stall_s=0.3))


def test_an_upload_without_a_length_is_refused_unread(tmp_path: Path) -> None:
    async def scenario(upload: Upload) -> None:
        headers = {**upload.headers(), "transfer-encoding": "chunked", "content-length": ""}
        status, _ = await in_thread(
            upload.raw.request, "POST", fleetwire.REPLY_PATH, b"1\r\nx\r\n0\r\n\r\n", headers
        )
        assert status == 411
        await upload.honest()

    run(tmp_path, scenario)


@given(st.binary(max_size=300), st.integers(1, 64))
def test_frames_are_cut_the_same_whatever_the_pieces(data: bytes, size: int) -> None:
    frames = [data[start : start + size] for start in range(0, len(data), size)] + [b""]
    body = b"".join(fleetwire.frame_head(len(frame)) + frame for frame in frames)
    for step in (1, 3, size, len(body)):
        decoder = fleetwire.FrameDecoder()
        got = [
            frame for start in range(0, len(body), step) for frame in decoder.feed(body[start : start + step])
        ]
        decoder.finish()
        assert got == frames


def test_a_frame_beyond_the_bound_is_refused_before_its_body_is_read() -> None:
    with pytest.raises(ContentError, match="at most"):
        list(fleetwire.FrameDecoder(max_frame_bytes=10).feed(fleetwire.frame_head(11)))
    with pytest.raises(ContentError, match="too many"):
        list(fleetwire.FrameDecoder(max_frames=2).feed(fleetwire.frame_head(0) * 3))
    decoder = fleetwire.FrameDecoder()
    list(decoder.feed(fleetwire.frame_head(5) + b"ab"))
    with pytest.raises(ContentError, match="inside a frame"):
        decoder.finish()


def test_whoever_is_refused_in_the_middle_of_a_small_body_reads_why(tmp_path: Path) -> None:
    """A connection that is closed with bytes unread is reset, and the answer on its way goes with it."""

    async def scenario(upload: Upload) -> None:
        half = bytes(100_000)
        headers = {**upload.headers(), fleetwire.MESSAGE_HEADER: "unknown", "content-length": "200000"}
        head = f"POST {fleetwire.REPLY_PATH} HTTP/1.1\r\nhost: x\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"

        def post_slowly() -> tuple[int, bytes]:
            with upload.raw.connect() as connected:
                connected.sendall(head.encode() + half)
                time.sleep(0.3)
                connected.sendall(half[:50_000])
                time.sleep(0.1)
                connected.sendall(half[50_000:])
                response = http.client.HTTPResponse(connected, method="POST")
                response.begin()
                return response.status, response.read()

        status, body = await in_thread(post_slowly)
        assert (status, b"no such reply" in body) == (410, True)
        await upload.honest()

    run(tmp_path, scenario)
