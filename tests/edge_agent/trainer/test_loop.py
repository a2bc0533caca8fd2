"""The trainer's loop: answers what comes, outlives a server that is away, sends one update as often as need be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from hedgerow.edge_agent.trainer.loop import REPLY_TRIES, Backoff, serve
from hedgerow.shared.errors import AuthError, ContentError, IntegrityError, TransportError
from hedgerow.shared.job import PrivacySpec, TrainingSpec, TrainInstruction, TrainReply

ASKED = TrainInstruction(
    "job", 1, 0, "tiny", "h", {}, PrivacySpec("none"), TrainingSpec(), "float32", 3, 0, "m", 60.0
)
ANSWER = TrainReply("job", 1, 0, 0, "float32", 0, "s")


class ScriptedNode:
    """A node that plays a list of happenings: an error to raise, None for a timeout, or an instruction."""

    def __init__(self, received: list[Any], replies: list[Any] | None = None) -> None:
        self.received = received
        self.replies = replies or []
        self.sent: list[tuple[Any, TrainReply, bytes]] = []
        self.stop = threading.Event()

    def receive(self, timeout_s: float) -> tuple[TrainInstruction, Any] | None:
        happening = self.received.pop(0)
        if not self.received:
            self.stop.set()
        if isinstance(happening, Exception):
            raise happening
        return (ASKED, happening) if happening is not None else None

    def fetch_model(self, sha256: str) -> bytes:
        raise NotImplementedError

    def reply(self, handle: Any, header: TrainReply, payload: bytes) -> None:
        happening = self.replies.pop(0) if self.replies else None
        if isinstance(happening, Exception):
            raise happening
        self.sent.append((handle, header, payload))

    def close(self) -> None:
        return


def play(
    received: list[Any],
    replies: list[Any] | None = None,
    answer: Callable[[TrainInstruction], tuple[TrainReply, bytes]] = lambda _: (ANSWER, b"u"),
) -> ScriptedNode:
    node = ScriptedNode(received, replies)
    serve(node, answer, stop=node.stop, backoff=Backoff(0.0, 0.0))
    return node


def test_each_instruction_is_answered_by_its_handle() -> None:
    assert play([1, None, 2]).sent == [(1, ANSWER, b"u"), (2, ANSWER, b"u")]


@pytest.mark.parametrize("error", [TransportError("away"), ContentError("cannot be read")])
def test_the_loop_goes_on_after_a_server_that_is_away_or_unclear(error: Exception) -> None:
    assert [handle for handle, _, _ in play([error, error, 1]).sent] == [1]


@pytest.mark.parametrize("error", [AuthError("revoked"), IntegrityError("damage"), ValueError("bug")])
def test_other_errors_end_the_loop(error: Exception) -> None:
    with pytest.raises(type(error)):
        play([error, 1])


def test_a_ledger_found_damaged_while_answering_ends_the_loop() -> None:
    def answer(_: TrainInstruction) -> tuple[TrainReply, bytes]:
        raise IntegrityError("altered")

    with pytest.raises(IntegrityError):
        play([1, 2], answer=answer)


def test_a_reply_that_breaks_off_is_sent_again_as_it_was() -> None:
    calls = []

    def answer(asked: TrainInstruction) -> tuple[TrainReply, bytes]:
        calls.append(asked)
        return ANSWER, b"only once"

    def broken(*_: object) -> TransportError:
        return TransportError("broken off")

    node = ScriptedNode([1, None, None], [broken(), broken()])
    waits = Backoff(0.0, 0.0)
    serve(node, answer, stop=node.stop, backoff=waits)

    assert node.sent == [(1, ANSWER, b"only once")]
    assert len(calls) == 1


def test_a_reply_that_cannot_be_sent_is_given_up_and_the_next_round_answered() -> None:
    node = play([1, 2, None], [TransportError("x")] * REPLY_TRIES)

    assert [handle for handle, _, _ in node.sent] == [2]


def test_waits_double_up_to_the_longest_and_start_over_after_success() -> None:
    waits = Backoff(0.5, 3.0)

    assert [waits.failure() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    waits.success()
    assert waits.failure() == 0.5
