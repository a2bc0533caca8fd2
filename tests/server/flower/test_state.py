"""Instructions wait in their own node's queue: what is handed out, in which order, and how much is looked at for it."""

from __future__ import annotations

import hashlib
import time

import pytest
from flwr.app.message.message import remove_content_from_message
from tests.support.round_parts import instruction

from hedgerow.server.flower.fab import FabInfo
from hedgerow.server.flower.messages import address, packed_record
from hedgerow.server.flower.state import WatchedLinkState


@pytest.fixture
def state() -> WatchedLinkState:
    return WatchedLinkState(lambda instruction_id, reply_id: None)


def enter(state: WatchedLinkState, device: str) -> int:
    """Make a device's node, active as a trainer's is."""
    node_id = state.add_node(device.encode(), device)
    assert state.activate_node(node_id, 20.0)
    return node_id


def offer(state: WatchedLinkState, run_id: int, node_id: int, *, round: int = 1, ttl_s: float = 60.0) -> str:
    record = packed_record(instruction(4, round=round))
    return state.offer(address(record, run_id=run_id, node_id=node_id, group=str(round), ttl_s=ttl_s))


def handed(state: WatchedLinkState, node_id: int, limit: int | None, run_id: int | None) -> list[str]:
    return [m.metadata.message_id for m in state.get_message_ins(node_id, limit, run_id=run_id)]


def test_a_cohort_is_served_by_one_look_at_each_message(
    state: WatchedLinkState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every device of a round asks for its own; looking at all messages each time blocks the server for seconds."""
    run_id, count = state.open_run(None), 40
    nodes = [enter(state, f"device-{n}") for n in range(count)]
    ids = [offer(state, run_id, node) for node in nodes]
    looked: list[str] = []
    check = state._check_stored_messages

    def counted(message_ids: set[str], run_id: int | None = None) -> None:
        looked.extend(message_ids)
        check(message_ids, run_id)

    monkeypatch.setattr(state, "_check_stored_messages", counted)

    assert [handed(state, node, 1, run_id) for node in reversed(nodes)] == [[one] for one in reversed(ids)]
    assert [handed(state, node, 1, run_id) for node in nodes] == [[]] * count
    assert len(looked) == count


def test_a_node_gets_its_own_the_oldest_first_and_each_once(state: WatchedLinkState) -> None:
    run_id = state.open_run(None)
    one, other = enter(state, "one"), enter(state, "other")
    ids = [offer(state, run_id, one, round=n) for n in (1, 2, 3)]
    offer(state, run_id, other)

    assert handed(state, one, 1, run_id) == ids[:1]
    assert handed(state, one, None, run_id) == ids[1:]
    assert handed(state, one, None, run_id) == []


def test_a_message_that_is_offered_again_is_not_handed_out_again(state: WatchedLinkState) -> None:
    run_id = state.open_run(None)
    node = enter(state, "one")
    message = address(packed_record(instruction(4)), run_id=run_id, node_id=node, group="1", ttl_s=60.0)
    message_id = state.offer(message)

    assert handed(state, node, 1, run_id) == [message_id]
    assert state.store_message_ins(remove_content_from_message(message)) == message_id
    assert handed(state, node, 1, run_id) == []


def test_one_run_does_not_get_what_is_another_s_and_stock_nodes_only_what_is_of_stock_runs(
    state: WatchedLinkState,
) -> None:
    fab = FabInfo("publisher/app", "1.0.0", hashlib.sha256(b"app").hexdigest(), b"app")
    own, stock = state.open_run(None), state.open_run(fab)
    node = enter(state, "one")
    packed, flower = offer(state, own, node), offer(state, stock, node, round=2)

    assert handed(state, node, None, None) == [flower]
    assert handed(state, node, None, stock) == []
    assert handed(state, node, None, own) == [packed]


def test_what_expired_is_never_handed_out(state: WatchedLinkState, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = state.open_run(None)
    node = enter(state, "one")
    offer(state, run_id, node, ttl_s=0.05)
    lasting = offer(state, run_id, node, round=2)
    time.sleep(0.06)

    assert handed(state, node, None, run_id) == [lasting]
    assert state.num_message_ins() == 1


@pytest.mark.parametrize("end", ["forgotten", "run closed", "handed out"])
def test_nothing_stays_in_a_queue(state: WatchedLinkState, end: str) -> None:
    run_id = state.open_run(None)
    node = enter(state, "one")
    message_id = offer(state, run_id, node)
    if end == "forgotten":
        state.forget(message_id)
    elif end == "run closed":
        state.close_run(run_id)
    else:
        handed(state, node, 1, run_id)

    assert state._queued == {}
    assert handed(state, node, 1, run_id) == []
