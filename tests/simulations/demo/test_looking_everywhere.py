"""The alarm is looked for where people look; what the demo prints and publishes is what it found."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.simulations.demo.test_detection import alarm, heard
from tests.simulations.demo.test_table import printed, result

from hedgerow.edge_agent.telemetry.mapping import Mapping
from hedgerow.edge_agent.telemetry.windower import Windower
from hedgerow.models.pump.faults import DEFAULT_FAULT
from hedgerow.shared.errors import TransportError
from hedgerow.shared.job import Job
from hedgerow.shared.messages import ChannelShare
from hedgerow.shared.profile import Channel, DeviceProfile, SourceSpec, WindowSpec
from hedgerow.shared.tomlfile import read_toml
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.demo import flow
from hedgerow.simulations.demo.comparing import CompareRequest, beside
from hedgerow.simulations.demo.detection import Detection, Heard, Planted
from hedgerow.simulations.demo.looking import Lookout
from hedgerow.simulations.demo.result import DemoResult, DeviceResult
from hedgerow.simulations.demo.sensors import SimulatedSensor, payload, time_of, write_images
from hedgerow.simulations.demo.table import print_result

CONFIGS = configs_folder()
JOB = msgspec.structs.replace(result().jobs[0], manifest_sha256="cd" * 32)
PLANTED = Planted("pump-1", "bearing", "flow", 100)
PROFILE = DeviceProfile(
    "p", 1, channel=(Channel("flow", "V", -1e3, 1e3, 0, 1),), window=WindowSpec(length=8, stride=4)
)


class Page(BaseHTTPRequestHandler):
    """A dashboard: it shows its page to whoever logged in with the token."""

    text = ""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.send_response(303 if body == "token=sesame" else 401)
        if body == "token=sesame":
            self.send_header("set-cookie", "session=1")
        self.send_header("location", "/")
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        text = (self.text if "session=1" in (self.headers["cookie"] or "") else "log in").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def dashboard() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def lookout(
    tmp_path: Path, dashboard: str, *, events: list[dict[str, Any]], active: list[str], token: str = "sesame"
) -> tuple[Lookout, list[dict[str, Any]]]:
    (tmp_path / "token").write_text(f"{token}\n")
    asked: list[dict[str, Any]] = []

    def get(what: str, **query: Any) -> list[dict[str, Any]]:
        asked.append({"what": what, **query})
        return events

    server: Any = SimpleNamespace(
        client=SimpleNamespace(get=get), dashboard=dashboard, operator_token=tmp_path / "token"
    )
    agent: Any = SimpleNamespace(status=lambda: {"alarms_active": active})
    return Lookout(server, {"pump-1": agent}, PROFILE), asked


def raised(end: int = 104, **changes: Any) -> Heard:
    shares = (ChannelShare("current", 0.2), ChannelShare("flow", 0.7), ChannelShare("heat", 0.1))
    said = msgspec.structs.replace(alarm(end - 7, end), attribution=shares, bundle="cd" * 32, **changes)
    return Heard("pump-1", said, end - 7, end)


def event(found: Heard) -> dict[str, Any]:
    return {"kind": "alarm", "detail": {"window_end_us": found.alarm.window_end_us}}


def test_an_alarm_seen_everywhere_falls_short_of_nothing(
    tmp_path: Path, dashboard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Page, "text", f"<td>pump-1</td> … {'cd' * 6}")
    found = raised()
    look, asked = lookout(tmp_path, dashboard, events=[event(found)], active=["flow"])

    seen, short = look.find(PLANTED, [heard("pump-1", 99), heard("pump-2", 101), found], JOB)

    assert short == []
    assert seen is not None
    assert (seen.top_channel, seen.delay_windows) == ("flow", 2)
    assert (seen.on_device, seen.on_mqtt, seen.in_events, seen.on_dashboard) == (True,) * 4
    assert asked == [{"what": "events", "device": "pump-1", "limit": 1000}]


@pytest.mark.parametrize(
    ("text", "token", "active", "events", "short"),
    [
        ("<td>pump-1</td>", "sesame", ["flow"], "right", "dashboard"),
        (f"<td>pump-10</td> {'cd' * 6}", "sesame", ["flow"], "right", "dashboard"),
        (f"<td>pump-1</td> {'cd' * 6}", "guess", ["flow"], "right", "dashboard"),
        (f"<td>pump-1</td> {'cd' * 6}", "sesame", [], "right", "on the device"),
        (f"<td>pump-1</td> {'cd' * 6}", "sesame", ["flow"], "none", "events"),
        (f"<td>pump-1</td> {'cd' * 6}", "sesame", ["flow"], "earlier", "events"),
        (f"<td>pump-1</td> {'cd' * 6}", "sesame", ["flow"], "cleared", "events"),
    ],
)
def test_a_place_where_it_is_not_seen_is_named(
    tmp_path: Path, dashboard: str, monkeypatch: pytest.MonkeyPatch,
    text: str, token: str, active: list[str], events: str, short: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(Page, "text", text)
    found = raised()
    known = {
        "right": [event(found)],
        "none": [],
        "earlier": [{"kind": "alarm", "detail": {"window_end_us": found.alarm.window_end_us - 1}}, {"kind": "alarm", "detail": {}}],
        "cleared": [{**event(found), "kind": "alarm-cleared"}],
    }[events]  # fmt: skip
    look, _ = lookout(tmp_path, dashboard, events=known, active=active, token=token)

    _, (said,) = look.find(PLANTED, [found], JOB)

    assert short in said


def test_a_fault_that_raised_nothing_is_looked_for_nowhere(tmp_path: Path) -> None:
    look, asked = lookout(tmp_path, "http://127.0.0.1:1", events=[], active=[])

    seen, short = look.find(PLANTED, [heard("pump-1", 99), heard("pump-2", 104)], JOB)

    assert seen is None and asked == []
    assert short == ["the bearing fault of pump-1 raised no alarm"]


def child(tmp_path: Path, said: str, status: int = 0) -> str:
    """A program that takes the request, keeps it, and says something."""
    path = tmp_path / "python"
    path.write_text(
        f"#!/bin/sh\ncat > {tmp_path / 'asked'}\necho 'a warning first'\necho '{said}'\nexit {status}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_scores_on_recordings_replace_the_servers_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = read_toml(CONFIGS / "jobs" / "digits.toml", Job)
    said = '{"untrained": 0.1, "local_only": 0.2, "pooled": 0.4, "federated": 0.3}'
    monkeypatch.setattr(sys, "executable", child(tmp_path, said))

    found = beside(job, JOB, [Path("/a"), Path("/b")], ((1, 2), ()))

    assert (found.untrained, found.local_only, found.federated, found.pooled) == (0.1, 0.2, 0.3, 0.4)
    assert found.metric == "explained, later normal rows"
    asked = msgspec.json.decode((tmp_path / "asked").read_bytes(), type=CompareRequest)
    assert asked == CompareRequest(job, ("/a", "/b"), ((1, 2), ()))


def test_scores_on_the_public_set_leave_the_servers_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = read_toml(CONFIGS / "jobs" / "digits.toml", Job)
    said = '{"untrained": 0.1, "local_only": 0.2, "pooled": 0.4}'
    monkeypatch.setattr(sys, "executable", child(tmp_path, said))

    found = beside(job, JOB, [], ())

    assert (found.federated, found.metric, found.pooled) == (JOB.federated, "explained", 0.4)


def test_a_child_that_fails_is_told_with_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = read_toml(CONFIGS / "jobs" / "digits.toml", Job)
    monkeypatch.setattr(sys, "executable", child(tmp_path, "{}", status=3))

    with pytest.raises(TransportError, match="comparing digits failed"):
        beside(job, JOB, [], ())


@pytest.mark.parametrize(
    ("untrained", "federated", "short"),
    [(0.1, 0.2, 0), (0.2, 0.2, 1), (0.3, 0.2, 1), (0.1, float("nan"), 1), (float("-inf"), 0.2, 0)],
)
def test_a_model_that_does_not_beat_the_untrained_one_falls_short(
    monkeypatch: pytest.MonkeyPatch, untrained: float, federated: float, short: int
) -> None:
    found = msgspec.structs.replace(JOB, untrained=untrained, federated=federated)
    monkeypatch.setattr(flow, "beside", lambda *_: found)
    demo = flow.Demo.__new__(flow.Demo)  # its processes have no part in this
    demo._say, demo._agents, demo._shortfalls = print, {}, []

    assert demo._compare(read_toml(CONFIGS / "jobs" / "digits.toml", Job), JOB, ()) is found

    assert len(demo._shortfalls) == short
    assert all("does not beat untrained" in said for said in demo._shortfalls)


NESTED = SourceSpec("s", timestamp="at.time", fields={"flow": "x.y.flow", "heat": "x.heat"})
TWO = DeviceProfile(
    "p", 1, channel=tuple(Channel(n, "V", -1e9, 1e9, 0, 1) for n in ("flow", "heat", "unsent"))
)


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), st.integers(0, 10**6))
def test_nested_fields_come_back_and_unmapped_channels_stay_here(row: list[float], second: int) -> None:
    data = payload(TWO, NESTED, time_of(second), np.array(row))

    decoded = Mapping(NESTED, TWO.channels).decode(data, 0)

    assert decoded.refusals == ()
    (read,) = decoded.rows
    assert read.time_us == round(time_of(second).timestamp() * 1e6)
    assert dict(read.values) == pytest.approx({0: row[0], 1: row[1]}, abs=6e-7)
    assert "unsent" not in data.decode()


def test_a_row_of_another_width_is_not_published_as_if_it_fitted() -> None:
    with pytest.raises(ValueError, match="zip"):
        payload(TWO, NESTED, time_of(0), np.zeros(2))


def test_machines_of_one_seed_are_different_machines() -> None:
    first = SimulatedSensor(0, 1).rows(30)

    assert not np.allclose(first, SimulatedSensor(1, 1).rows(30))
    again = SimulatedSensor(0, 1)
    assert np.array_equal(np.concatenate([again.rows(n) for n in (1, 9, 20)]), first)
    assert again.row == 30
    assert again.inject(DEFAULT_FAULT, 5) == 35


def test_images_are_written_as_the_agent_reads_them(tmp_path: Path) -> None:
    images, labels = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1), np.array([3, 4])

    with np.load(write_images(tmp_path, "pump-1", images, labels)) as read:
        assert np.array_equal(read["x"], images)
        assert read["y"].tolist() == [3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["pump-1-images.npz"]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 60), length=st.integers(1, 12))
def test_so_many_windows_are_what_a_windower_gives(rows: int, length: int) -> None:
    spec = WindowSpec(length=length, late_rows=0)
    follow = Windower(spec, 1)
    for n in range(rows):
        follow.put(0, 1_700_000_000_000_000 + n * 1_000_000, 1.0)

    assert flow._windows(rows, spec) == len(list(follow.take(final=True)))


def test_a_job_is_promised_in_the_words_of_its_privacy() -> None:
    private = read_toml(CONFIGS / "jobs" / "pump-anomaly.toml", Job)
    plain = read_toml(CONFIGS / "jobs" / "digits.toml", Job)

    assert flow._promise(plain) == f"{plain.rounds} rounds without privacy (ε = ∞)"
    said = flow._promise(private)
    assert f"ε ≤ {private.privacy.epsilon:g}" in said and f"δ ≤ {private.privacy.delta:g}" in said


@pytest.mark.parametrize(
    ("scores", "epsilon", "said"),
    [
        ({"accuracy": 0.5}, 1.25, "  round 2/8, 4/5 devices, 3 kB, 1.5 s, accuracy 0.500, ε 1.25 of 8"),
        ({}, None, "  round 2/8, 4/5 devices, 3 kB, 1.5 s"),
        ({"accuracy": 0.0}, 0.0, "  round 2/8, 4/5 devices, 3 kB, 1.5 s, accuracy 0.000, ε 0.00 of 8"),
    ],
)
def test_a_round_is_told_in_one_line(scores: dict[str, float], epsilon: float | None, said: str) -> None:
    job = {"metric": "accuracy", "rounds": 8, "epsilon_asked": 8.0}
    one = {"scores": scores, "round": 2, "replied": 4, "drawn": 5, "bytes_up": 1000, "bytes_down": 2000,
           "duration_s": 1.5, "epsilon": epsilon}  # fmt: skip

    assert flow._round_line(job, one) == said


def test_artefacts_are_told_by_runtime_and_precision() -> None:
    model = {
        "artefacts": [["a.onnx", "onnxruntime", "int8", 10], ["b.tflite", "litert", "float32", 20]],
        "scores": {"onnxruntime.int8.latency_p50_us": 4, "onnxruntime.int8.accuracy": 9},
    }

    assert flow._artefacts(model) == {
        "onnxruntime.int8": {"size_bytes": 10.0, "latency_p50_us": 4.0},
        "litert.float32": {"size_bytes": 20.0, "latency_p50_us": 0.0},
    }


def test_a_result_is_json_that_comes_back() -> None:
    found = result()

    assert msgspec.json.decode(msgspec.json.encode(found), type=DemoResult) == found


def test_what_is_missing_is_not_printed() -> None:
    text = printed(detection=(), alarm=None, devices=(), jobs=())

    for piece in ("Detection on the same replay", "alarm of", "against the labels", "fell short"):
        assert piece not in text
    assert text.rstrip().endswith("done in 100 s")


def test_shortfalls_with_brackets_are_printed_as_they_are() -> None:
    shortfalls = ("[/bold] of [red]x", "second")

    text = printed(shortfalls=shortfalls, success=False)

    assert [line for line in text.splitlines() if line.startswith("fell short: ")] == [
        f"fell short: {what}" for what in shortfalls
    ]


def test_each_device_and_detector_has_its_row() -> None:
    devices = tuple(
        DeviceResult(f"d{n}", 7.25, 1e-5, 2e-4, 10 * n, "litert", "int8", 50_000_000 + n, 1500, 2_500_000)
        for n in range(3)
    )
    detection = (Detection("model", True, 2, 1, 99), Detection("baseline", False, None, 7, 99))
    out = io.StringIO()

    print_result(result(devices=devices, detection=detection), Console(file=out, width=200))

    lines = [line.split() for line in out.getvalue().splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}
    for n in range(3):
        assert rows[f"d{n}"][:4] == ["7.25", "1e-05", "0.0002", str(10 * n)]
    assert rows["model"] == ["yes", "2", "1", "99"]
    assert rows["baseline"] == ["no", "–", "7", "99"]
