"""What the link's two threads say, in which order, and what they do with every kind of answer; the server is scripted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fleet import heartbeat_of
from tests.support.scripted_server import Asked, Said, ScriptedServer

from hedgerow.edge_agent.clock import LastKnownTime
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.client import DeviceClient, split_url
from hedgerow.edge_agent.link.desired import DesiredPoll
from hedgerow.edge_agent.link.reconnect import Reconnect
from hedgerow.edge_agent.link.renewal import LOOK_EVERY_S, IdentityFacts, Renewal, due_in_s, read_facts
from hedgerow.edge_agent.link.reporter import MAX_TRAINER_EXITS, Reporter
from hedgerow.edge_agent.link.tls import device_context
from hedgerow.edge_agent.outbox.store import Outbox
from hedgerow.shared.errors import ConfigError, StorageError, TransportError
from hedgerow.shared.messages import DesiredState, EventAck, HeartbeatAck, Notice, TrainerExit
from hedgerow.simulations.bench.bed import Bed

NOW_US = 1_780_000_000_000_000
Script = Callable[[Asked], Said]


def kind(asked: Asked) -> str:
    return asked.path.rsplit("/", 1)[1].partition("?")[0]


def accept(asked: Asked) -> Said:
    """Answer as the server does when all is well."""
    if kind(asked) == "heartbeat":
        return Said(200, msgspec.json.encode(HeartbeatAck(NOW_US, 0)))
    if kind(asked) == "events":
        events = json.loads(asked.body)["events"]
        return Said(
            200, msgspec.json.encode(EventAck(json.loads(asked.body)["epoch"], events[-1]["sequence"]))
        )
    return Said(200, b"{}")


def refusing(refused: Callable[[Asked], bool], status: int = 400) -> Script:
    return lambda asked: Said(status, b'{"detail":"no"}') if refused(asked) else accept(asked)


def quick() -> Reconnect:
    return Reconnect(first_s=0.01, longest_s=0.02, refused_s=0.01)


class Rig:
    """A reporter, its outbox, and the server that it reports to."""

    def __init__(self, folder: Path, bed: Bed, script: Script, interval_s: float = 3600.0) -> None:
        self.server = ScriptedServer(bed.authority, script)
        self.outbox = Outbox(folder / "outbox.db")
        self.clock = LastKnownTime(folder / "clock.json")
        self.client = DeviceClient(self.server.url, device_context(bed.identity("a")))
        self.state = quick()
        self.reporter = Reporter(
            self.client, self.outbox, lambda: heartbeat_of("a"), self.clock, self.state, interval_s=interval_s
        )

    def kinds(self, count: int) -> list[str]:
        """Return the first so many kinds of request."""
        return [kind(asked) for asked in self.server.wait(lambda got: len(got) >= count)][:count]

    def sequences(self) -> list[list[int]]:
        """Return the sequence numbers of each batch that was sent."""
        return [
            [event["sequence"] for event in json.loads(asked.body)["events"]]
            for asked in self.server.asked
            if kind(asked) == "events"
        ]


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    return Bed(tmp_path_factory.mktemp("bed"))


@contextmanager
def rigged(
    folder: Path,
    bed: Bed,
    script: Script = accept,
    before: Callable[[Rig], object] = lambda _rig: None,
    **more: Any,
) -> Iterator[Rig]:
    rig = Rig(folder, bed, script, **more)
    before(rig)
    with rig.server:
        rig.reporter.start()
        yield rig
        rig.reporter.stop(10)
        rig.outbox.close()


def put(count: int) -> Callable[[Rig], object]:
    return lambda rig: [rig.outbox.put("info", Notice("n", str(n))) for n in range(count)]


def drained(rig: Rig) -> None:
    """Wait until nothing is pending; the last acknowledgement is worked in after its request was noted."""
    pause = threading.Event()
    for _ in range(3000):
        if rig.outbox.pending() == 0:
            return
        pause.wait(0.01)
    raise AssertionError(f"{rig.outbox.pending()} are pending")


# Order


def test_exits_go_before_the_heartbeat_and_the_heartbeat_before_events(tmp_path: Path, bed: Bed) -> None:
    def before(rig: Rig) -> None:
        rig.outbox.put("info", Notice("n", ""))
        rig.reporter.trainer_exited(TrainerExit("one", 1))
        rig.reporter.trainer_exited(TrainerExit("two", 2))

    with rigged(tmp_path, bed, before=before) as rig:
        assert rig.kinds(4) == ["trainer-exit", "trainer-exit", "heartbeat", "events"]
    jobs = [json.loads(asked.body)["job_id"] for asked in rig.server.asked[:2]]
    assert jobs == ["one", "two"]


def test_of_many_exits_the_latest_are_told(tmp_path: Path, bed: Bed) -> None:
    def before(rig: Rig) -> None:
        for n in range(MAX_TRAINER_EXITS + 5):
            rig.reporter.trainer_exited(TrainerExit(f"job-{n}", 1))

    with rigged(tmp_path, bed, before=before) as rig:
        rig.kinds(MAX_TRAINER_EXITS + 1)
    told = [json.loads(a.body)["job_id"] for a in rig.server.asked if kind(a) == "trainer-exit"]
    assert told == [f"job-{n}" for n in range(5, MAX_TRAINER_EXITS + 5)]


def test_what_the_server_says_of_the_time_is_learnt(tmp_path: Path, bed: Bed) -> None:
    with rigged(tmp_path, bed, before=put(1)) as rig:
        rig.kinds(2)  # the events come after the heartbeat's answer was worked in
        assert rig.clock.known_us == NOW_US


# Refusals


def test_a_refused_heartbeat_is_dropped_and_events_go_on(tmp_path: Path, bed: Bed) -> None:
    with rigged(tmp_path, bed, refusing(lambda a: kind(a) == "heartbeat"), put(3)) as rig:
        drained(rig)
        assert rig.kinds(2) == ["heartbeat", "events"]
    assert rig.state.failures == 0
    assert [kind(a) for a in rig.server.asked].count("heartbeat") == 1


def test_a_refused_exit_is_dropped_and_never_told_again(tmp_path: Path, bed: Bed) -> None:
    def before(rig: Rig) -> None:
        rig.reporter.trainer_exited(TrainerExit("bad", 1))
        rig.reporter.trainer_exited(TrainerExit("good", 1))

    def refused(asked: Asked) -> bool:
        return b"bad" in asked.body

    with rigged(tmp_path, bed, refusing(refused), before) as rig:
        assert rig.kinds(3) == ["trainer-exit", "trainer-exit", "heartbeat"]


@pytest.mark.parametrize("bad", [{3}, {1}, {5}, {2, 3}, {1, 2, 3, 4, 5}])
def test_refused_events_become_gaps_and_all_others_arrive_in_order(
    bad: set[int], tmp_path: Path, bed: Bed
) -> None:
    taken: list[int] = []

    def script(asked: Asked) -> Said:
        if kind(asked) != "events":
            return accept(asked)
        events = json.loads(asked.body)["events"]
        if any(e["sequence"] in bad and e["body"]["type"] == "notice" for e in events):
            return Said(422, b'{"detail":"no"}')
        taken.extend(e["sequence"] for e in events if e["body"]["type"] == "notice")
        return accept(asked)

    with rigged(tmp_path, bed, script, put(5)) as rig:
        drained(rig)
    assert taken == sorted(set(range(1, 6)) - bad)
    gaps = [
        (e["body"]["first"], e["body"]["last"])
        for asked in rig.server.asked
        if kind(asked) == "events"
        for e in json.loads(asked.body)["events"]
        if e["body"]["type"] == "gap"
    ]
    covered = {n for first, last in gaps for n in range(first, last + 1)}
    assert covered == bad


# Outages


@pytest.mark.parametrize("status", [429, 500, 503, 401, 403])
def test_nothing_is_lost_while_the_server_does_not_want_to_hear(
    status: int, tmp_path: Path, bed: Bed
) -> None:
    left = [6]

    def script(asked: Asked) -> Said:
        if left[0] > 0:
            left[0] -= 1
            return Said(status, b"{}")
        return accept(asked)

    with rigged(tmp_path, bed, script, put(3)) as rig:
        drained(rig)
        assert rig.sequences()[-1] == [1, 2, 3]
    # The heartbeat came due again each time that it did not get through.
    assert rig.kinds(8) == ["heartbeat"] * 7 + ["events"]


def test_an_answer_that_is_none_is_an_outage_of_events_only(tmp_path: Path, bed: Bed) -> None:
    wrong = [2]

    def script(asked: Asked) -> Said:
        if kind(asked) == "events" and wrong[0]:
            wrong[0] -= 1
            return Said(200, b"not an ack")
        return accept(asked)

    with rigged(tmp_path, bed, script, put(1)) as rig:
        drained(rig)
    assert [kind(a) for a in rig.server.asked].count("heartbeat") >= 1


def test_an_acknowledgement_of_part_sends_the_rest(tmp_path: Path, bed: Bed) -> None:
    def script(asked: Asked) -> Said:
        if kind(asked) != "events":
            return accept(asked)
        batch = json.loads(asked.body)
        return Said(200, msgspec.json.encode(EventAck(batch["epoch"], batch["events"][0]["sequence"])))

    with rigged(tmp_path, bed, script, put(3)) as rig:
        drained(rig)
    assert rig.sequences() == [[1, 2, 3], [2, 3], [3]]


def test_heartbeats_asked_for_come_at_once_though_the_interval_is_long(tmp_path: Path, bed: Bed) -> None:
    with rigged(tmp_path, bed) as rig:
        for count in (1, 2, 3):
            assert rig.kinds(count) == ["heartbeat"] * count
            rig.reporter.heartbeat_now()
        rig.kinds(4)


def test_stopping_while_the_server_is_away_ends_the_thread(tmp_path: Path, bed: Bed) -> None:
    rig = Rig(tmp_path, bed, refusing(lambda _asked: True, 503))
    rig.state = Reconnect(first_s=60.0, longest_s=60.0)
    rig.reporter._reconnect = rig.state
    with rig.server:
        rig.reporter.start()
        rig.kinds(1)
        rig.reporter.stop(20)
    assert not rig.reporter._thread.is_alive()
    rig.outbox.close()


# The long poll


@contextmanager
def polling(
    bed: Bed,
    script: Script,
    on_desired: Callable[[DesiredState], None],
    on_back: Callable[[], None] = lambda: None,
) -> Iterator[ScriptedServer]:
    with ScriptedServer(bed.authority, script) as server:
        client = DeviceClient(server.url, device_context(bed.identity("a")))
        poll = DesiredPoll(client, on_desired, quick(), wait_s=0.5, on_back=on_back)
        poll.start()
        yield server
        poll.stop(10)
        assert not poll._thread.is_alive()


def test_each_question_names_the_revision_last_followed(bed: Bed) -> None:
    revisions = iter([0, 4, 4, 7])
    done = threading.Event()

    def script(_asked: Asked) -> Said:
        revision = next(revisions, None)
        if revision is None:
            done.set()
            done.wait(0.05)
            return Said(204, b"")
        return Said(200, msgspec.json.encode(DesiredState(revision)))

    seen: list[int] = []
    with polling(bed, script, lambda state: seen.append(state.revision)) as server:
        assert done.wait(30)
        server.wait(lambda got: len(got) >= 6)
    assert seen == [0, 4, 4, 7]
    asked = [a.path for a in server.asked[:6]]
    assert asked == [f"/v1/device/desired?revision={r}&wait_s=0.5" for r in (-1, 0, 4, 4, 7, 7)]


def test_a_state_that_could_not_be_followed_is_asked_for_again(bed: Bed) -> None:
    tries: list[int] = []
    done = threading.Event()

    def follow(state: DesiredState) -> None:
        tries.append(state.revision)
        if len(tries) < 3:
            raise StorageError("the disk is full")
        done.set()

    def script(asked: Asked) -> Said:
        return (
            Said(204, b"") if "revision=5" in asked.path else Said(200, msgspec.json.encode(DesiredState(5)))
        )

    with polling(bed, script, follow) as server:
        assert done.wait(30)
        server.wait(lambda got: "revision=5" in got[-1].path)
    assert tries == [5, 5, 5]


@pytest.mark.parametrize(
    "answer", [Said(200, b"[]"), Said(200, b""), Said(500, b"x"), Said(200, b"y" * 50, cut=9)]
)
def test_rubbish_is_asked_again_and_the_return_is_told_once(answer: Said, bed: Bed) -> None:
    left, back, done = [3], [], threading.Event()

    def script(asked: Asked) -> Said:
        if left[0]:
            left[0] -= 1
            return answer
        return (
            Said(204, b"") if "revision=1&" in asked.path else Said(200, msgspec.json.encode(DesiredState(1)))
        )

    with polling(bed, script, lambda _state: done.set(), lambda: back.append(1)):
        assert done.wait(30)
    assert back


# Renewal


@given(st.floats(0, 1e9), st.floats(1, 1e8), st.floats(0, 2))
def test_renewal_is_due_at_two_thirds_of_a_life(begins: float, life: float, at: float) -> None:
    facts = IdentityFacts("a", "1", begins, begins + life)
    due = due_in_s(facts, begins + at * life)
    assert due == pytest.approx((2 / 3 - at) * life, abs=1e-6 * (begins + life))


class Home:
    """A home with just the facts of an identity."""

    def __init__(self, folder: Path, begins_s: float, ends_s: float) -> None:
        self.home = AgentHome(folder)
        self.home.identity.mkdir()
        facts = msgspec.json.encode(IdentityFacts("a", "1", begins_s, ends_s))
        (self.home.identity / "facts.json").write_bytes(facts)


def renewal(folder: Path, now_s: float, renew: Callable[[AgentHome], None]) -> tuple[Renewal, list[str]]:
    told: list[str] = []
    home = Home(folder, 0.0, 90_000.0).home
    state = Reconnect(first_s=30.0, longest_s=3600.0, jitter=lambda: 1.0)
    return Renewal(
        home, lambda: told.append("renewed"), renew=renew, now_s=lambda: now_s, reconnect=state
    ), told


def unexpected(_home: AgentHome) -> None:
    raise AssertionError("nothing is due")


@pytest.mark.parametrize(("now_s", "wait_s"), [(0.0, LOOK_EVERY_S), (58_000.0, 2000.0), (59_999.0, 1.0)])
def test_before_it_is_due_the_next_look_is_in_time_and_within_the_hour(
    now_s: float, wait_s: float, tmp_path: Path
) -> None:
    watching, told = renewal(tmp_path, now_s, unexpected)
    assert watching.step() == pytest.approx(wait_s)
    assert told == []


@pytest.mark.parametrize("now_s", [60_000.0, 89_000.0, 1e9])
def test_when_it_is_due_it_is_done_and_told_once(now_s: float, tmp_path: Path) -> None:
    done: list[Path] = []
    watching, told = renewal(tmp_path, now_s, lambda home: done.append(home.path))
    assert watching.step() == LOOK_EVERY_S
    assert (done, told) == ([tmp_path], ["renewed"])


def test_a_renewal_that_fails_is_tried_again_after_growing_pauses(tmp_path: Path) -> None:
    failures = [3]

    def fail(_home: AgentHome) -> None:
        if failures[0]:
            failures[0] -= 1
            raise TransportError("not reached")

    watching, told = renewal(tmp_path, 70_000.0, fail)
    assert [watching.step() for _ in range(4)] == [30.0, 60.0, 120.0, LOOK_EVERY_S]
    assert told == ["renewed"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"device": 1}'])
def test_facts_that_cannot_be_read_are_named_and_looked_for_again(
    content: bytes | None, tmp_path: Path
) -> None:
    watching, told = renewal(tmp_path, 70_000.0, unexpected)
    path = tmp_path / "identity" / "facts.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError, match=r"facts\.json: cannot be read"):
        read_facts(path)
    assert watching.step() == 30.0
    assert told == []


# Addresses


@given(st.text(max_size=30))
def test_no_text_is_taken_for_an_address_that_is_none(text: str) -> None:
    try:
        host, port = split_url(text)
    except ConfigError:
        return
    assert text.lower().startswith("https://")
    assert host
    assert 0 < port < 65_536


@pytest.mark.parametrize(
    "url",
    ["", "hub", "ftp://hub", "https://", "https://:8443", "https://hub:99999", "https://hub:x", "https://hub/path",
     "https://hub?x=1", "https://user@hub", "https://user:pw@hub:1", "https://[::1", "https://hub:-1"],
)  # fmt: skip
def test_what_is_no_address_is_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        split_url(url)
