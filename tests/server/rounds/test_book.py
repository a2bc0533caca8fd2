"""The books of one exchange: one answer a device, the rest refused and counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.rounds.book import Book, Contribution
from hedgerow.server.rounds.link import Reply
from hedgerow.shared.errors import UpdateRejectedError


def book() -> Book:
    kept = Book(["a", "b"])
    kept.messages = {"a": "m1", "b": "m2"}
    return kept


def reply(device: str, message_id: str) -> Reply:
    return Reply(device, message_id, None, (), 0, None)


@pytest.mark.parametrize(
    ("device", "message", "reason"), [("c", "m1", "unexpected"), ("a", "m0", "stale"), ("a", "m2", "stale")]
)
def test_foreign_and_old_answers_are_refused(device: str, message: str, reason: str) -> None:
    with pytest.raises(UpdateRejectedError) as refused:
        book().admit(reply(device, message))
    assert refused.value.reason == reason


@pytest.mark.parametrize("first", ["counted", "rejected", "declined"])
def test_whatever_a_first_answer_was_the_second_is_a_duplicate(first: str) -> None:
    kept = book()
    kept.admit(reply("a", "m1"))
    kept.settle(Contribution("a", first))
    with pytest.raises(UpdateRejectedError) as refused:
        kept.admit(reply("a", "m1"))
    assert refused.value.reason == "duplicate"
    with pytest.raises(ValueError, match="twice"):
        kept.settle(Contribution("a", "counted"))


def test_who_did_not_answer_is_missing_and_their_messages_are_named() -> None:
    kept = book()
    kept.settle(Contribution("a", "counted"))
    assert kept.close() == ["m2"]
    assert kept.contributions["b"].outcome == "missing"
    assert kept.close() == []


def test_a_device_that_could_not_be_asked_has_no_message_to_abandon() -> None:
    kept = Book(["a", "b"])
    kept.messages["a"] = "m1"
    assert kept.close() == ["m1"]


def test_rejections_count_strays_and_answers_by_reason() -> None:
    kept = book()
    kept.settle(Contribution("a", "rejected", "non-finite"))
    kept.settle(Contribution("b", "declined", "no data"))
    kept.strays["stale"] += 2
    kept.strays["non-finite"] += 1
    assert kept.rejections() == {"non-finite": 2, "stale": 2}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["counted", "rejected", "declined"]))))
def test_everybody_is_settled_exactly_once_in_the_end(answers: list[tuple[str, str]]) -> None:
    kept = Book("abc")
    kept.messages = {d: f"m{d}" for d in "abc"}
    for device, outcome in answers:
        try:
            kept.admit(reply(device, f"m{device}"))
        except UpdateRejectedError:
            continue
        kept.settle(Contribution(device, outcome))
    kept.close()
    assert set(kept.contributions) == set("abc")
    assert sum(kept.outcomes.values()) == 3
    assert kept.counted == sum(c.outcome == "counted" for c in kept.contributions.values())
    assert not kept.owing
