"""Faults that lie beside the usual ones: brokers that are none, files others own, boundaries of time and space."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.clock import TOLERANCE_US
from hedgerow.edge_agent.config import AgentConfig, MqttConfig
from hedgerow.edge_agent.doctor import main
from hedgerow.edge_agent.doctor.command import _engines_of, device_findings, server_findings
from hedgerow.edge_agent.doctor.databases import check_database
from hedgerow.edge_agent.doctor.device import (
    DISK_WARNING_BYTES,
    DISK_WRONG_BYTES,
    check_certificate,
    check_clock,
    check_disk,
    check_joined,
    check_slots,
)
from hedgerow.edge_agent.doctor.finding import Finding, State, as_text, diagnosis
from hedgerow.edge_agent.doctor.installation import ONNX_PROBE, check_extra, check_python, is_installed
from hedgerow.edge_agent.doctor.network import check_broker, check_server
from hedgerow.edge_agent.doctor.server_home import check_authority, check_set_up, check_tuf
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.inference.probe_model import PROBE
from hedgerow.simulations.bench.bed import Bed

NOW_S = 1_780_000_000.0
states: st.SearchStrategy[State] = st.sampled_from(["ok", "warning", "wrong", "skipped"])
words = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=12)


# The verdict


@given(st.lists(st.builds(Finding, words, states, words, words), max_size=8))
def test_the_verdict_and_the_counts_are_those_of_the_findings(findings: list[Finding]) -> None:
    found = diagnosis(findings)
    wrong = [one for one in findings if one.state == "wrong"]
    warned = [one for one in findings if one.state == "warning"]
    assert found.ok == (not wrong)
    text = as_text(found)
    assert text.endswith(f"\n{len(wrong)} wrong, {len(warned)} to look at\n")
    rows = text.splitlines()
    assert len(rows) == 2 * len(findings) + 2
    for one, row, remedy in zip(findings, rows[::2], rows[1::2], strict=False):
        assert row.split()[1:] == [one.name, one.what]
        assert remedy.split() == ["->", one.remedy]
    assert sum(row.startswith("WRONG") for row in rows) == len(wrong)


@given(st.tuples(st.integers(2, 4), st.integers(0, 30), st.integers(0, 9)))
def test_python_is_compared_as_numbers(version: tuple[int, int, int]) -> None:
    assert (check_python(version).state == "ok") == (version[0] > 3 or (version[0] == 3 and version[1] >= 11))


@pytest.mark.parametrize("module", ["no_such_module_here", "no_such.module", "json.nothing.more", ""])
def test_looking_for_what_is_not_there_is_no_error(module: str) -> None:
    assert not is_installed(module)


def test_an_extra_nobody_knows_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        check_extra("everything")


# Boundaries


@pytest.mark.parametrize(
    ("free", "state"),
    [
        (0, "wrong"), (DISK_WRONG_BYTES - 1, "wrong"), (DISK_WRONG_BYTES, "warning"), (DISK_WARNING_BYTES - 1, "warning"),
        (DISK_WARNING_BYTES, "ok"),
    ],
)  # fmt: skip
def test_the_disk_is_judged_at_its_limits(free: int, state: str, tmp_path: Path) -> None:
    assert check_disk(tmp_path, free).state == state


@pytest.mark.parametrize(
    ("behind_us", "state"), [(-1, "ok"), (0, "ok"), (TOLERANCE_US, "ok"), (TOLERANCE_US + 1, "wrong")]
)
def test_the_clock_may_be_five_minutes_behind(behind_us: int, state: str, tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    known = int(NOW_S * 1e6)
    home.clock.write_bytes(msgspec.json.encode({"last_known_us": known}))
    assert check_clock(home, known - behind_us).state == state


def test_a_clock_file_that_is_none_says_nothing(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    home.clock.write_bytes(b"\xff")
    assert check_clock(home).state == "skipped"


@pytest.mark.parametrize("missing", ["agent.toml", "key.pem", "cert.pem"])
def test_half_a_joining_names_what_is_missing(missing: str, tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    home.identity.mkdir()
    for path in (home.config, home.key, home.certificate):
        if path.name != missing:
            path.touch()
    found = check_joined(home)
    assert found.state == "wrong"
    assert found.what.endswith(f"no {missing}")


# Brokers that are none


@contextmanager
def listening(serve: Callable[[socket.socket], Any]) -> Iterator[str]:
    """Yield the URL of something that takes one connection and does ``serve`` with it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def broker_says(url: str, home: AgentHome, timeout_s: float = 5.0) -> Finding:
    config = AgentConfig("https://127.0.0.1:1", "dev-1", mqtt=MqttConfig(url))
    return check_broker(home, config, timeout_s)


@pytest.mark.parametrize(("code", "why"), [(2, "identifier"), (4, "password"), (5, "authorized")])
def test_why_a_broker_refuses_is_told(code: int, why: str, tmp_path: Path) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(bytes([0x20, 2, 0, code]))  # CONNACK of MQTT 3.1.1, section 3.2
        connection.recv(1024)

    with listening(refuse) as url:
        found = broker_says(url, AgentHome(tmp_path))
    assert found.state == "wrong"
    assert url in found.what
    assert "refused" in found.what
    assert why in found.what.lower()
    assert "access list" in found.remedy


def test_what_listens_and_says_nothing_is_no_broker(tmp_path: Path) -> None:
    released = threading.Event()
    with listening(lambda _connection: released.wait(20)) as url:
        found = broker_says(url, AgentHome(tmp_path), timeout_s=0.3)
        released.set()
    assert found.state == "wrong"
    assert "is it an MQTT broker?" in found.what


def test_a_web_server_is_no_broker(tmp_path: Path) -> None:
    with listening(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        found = broker_says(url, AgentHome(tmp_path), timeout_s=1.0)
    assert found.state == "wrong"


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = AgentConfig(
        "https://127.0.0.1:1", "dev-1", mqtt=MqttConfig(username="u", password_file="secret")
    )
    found = check_broker(AgentHome(tmp_path), config)
    assert found.state == "wrong"
    assert "secret" in found.what
    assert "[mqtt]" in found.remedy


def test_a_server_cannot_be_asked_without_an_identity(tmp_path: Path) -> None:
    found = check_server(AgentHome(tmp_path), AgentConfig("https://127.0.0.1:1", "dev-1"))
    assert found.state == "wrong"
    assert "identity cannot be used" in found.what or "fleet's CA" in found.what


# Files


def test_a_folder_in_place_of_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "samples.db").mkdir()
    found = check_database("samples", tmp_path / "samples.db", "look")
    assert (found.state, str(tmp_path / "samples.db") in found.what) == ("wrong", True)


def test_a_database_that_is_being_written_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (1)")
    assert check_database("outbox", path, "-").state == "ok"
    connection.execute("COMMIT")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    connection.close()


def test_names_with_signs_of_a_url_are_opened(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%20é"
    folder.mkdir()
    connection = sqlite3.connect(folder / "x.db")
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    assert check_database("x", folder / "x.db", "-").state == "ok"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = ", b"[x"])
def test_settings_of_a_server_that_are_no_toml_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_bytes(content)
    found = check_set_up(tmp_path)
    assert (found.state, found.remedy) == ("wrong", "correct the file")
    assert "server.toml: not TOML" in found.what


def test_a_folder_in_place_of_the_settings_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.toml").mkdir()
    assert "server.toml: Is a directory" in check_set_up(tmp_path).what


def tuf(folder: Path, name: str, **signed: Any) -> None:
    path = folder / "tuf" / "metadata" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"signed": signed, "signatures": []}))


def test_the_newest_metadata_counts_by_number_not_by_letters(tmp_path: Path) -> None:
    tuf(tmp_path, "9.root.json", version=9, expires="2020-01-01T00:00:00Z")
    tuf(tmp_path, "10.root.json", version=10, expires="2999-01-01T00:00:00Z")
    tuf(tmp_path, "x.root.json", version=99, expires="2020-01-01T00:00:00Z")
    root, targets, snapshot, timestamp = check_tuf(tmp_path, NOW_S)
    assert (root.state, "version 10" in root.what) == ("ok", True)
    assert [one.state for one in (targets, snapshot, timestamp)] == ["wrong"] * 3
    assert "no targets metadata" in targets.what


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_metadata_ends_with_the_second_that_it_names(at: float, tmp_path: Path) -> None:
    tuf(tmp_path, "timestamp.json", version=3, expires="2026-06-01T00:00:00Z")
    ends = 1_780_272_000.0
    found = check_tuf(tmp_path, ends - at)[3]
    assert found.state == ("wrong" if at == 0.0 else "ok")
    assert "version 3 until 2026-06-01 00:00 UTC" in found.what


@pytest.mark.parametrize(
    "signed",
    [
        {},
        {"version": 1},
        {"version": "1", "expires": "2999-01-01T00:00:00Z"},
        {"version": 1, "expires": "soon"},
    ],
)
def test_metadata_without_what_it_must_have_is_named(signed: dict[str, Any], tmp_path: Path) -> None:
    tuf(tmp_path, "timestamp.json", **signed)
    found = check_tuf(tmp_path, NOW_S)[3]
    assert found.state == "wrong"
    assert "timestamp.json: cannot be read" in found.what


@pytest.mark.parametrize("name", ["ca.pem", "ca.key.pem"])
@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_an_authority_that_lost_a_file_is_told_from_a_sound_one(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    bed = Bed(tmp_path)
    assert check_authority(tmp_path).state == "ok"
    path = bed.authority.folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    found = check_authority(tmp_path)
    assert found.state == "wrong"
    assert "backup" in found.remedy


def test_slots_that_cannot_be_listed_are_named(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    home.slots.write_text("a file where the folder should be")
    (found,) = check_slots(home)
    assert found.state in ("wrong", "skipped")


def test_a_certificate_is_late_with_a_sixth_of_its_life_left(tmp_path: Path) -> None:
    from cryptography import x509

    files = Bed(tmp_path).identity("a")
    home = AgentHome(tmp_path / "home")
    home.path.mkdir()
    home.identity.symlink_to(files.key.parent)
    made = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    begins, ends = made.not_valid_before_utc.timestamp(), made.not_valid_after_utc.timestamp()
    late = ends - (ends - begins) / 6
    at = (begins - 1, begins, late - 1, late + 1, ends - 1, ends)
    assert [check_certificate(home, now).state for now in at] == [
        "wrong",
        "ok",
        "ok",
        "warning",
        "warning",
        "wrong",
    ]


# The command


def test_without_a_home_the_usual_ones_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDGEROW_HOME", str(tmp_path / "device"))
    monkeypatch.setenv("HEDGEROW_SERVER_HOME", str(tmp_path / "server"))
    assert [one.state for one in (*device_findings(None), *server_findings(None))] == ["skipped", "skipped"]
    (tmp_path / "device").mkdir()
    (tmp_path / "server").mkdir()
    assert {one.name: one.state for one in device_findings(None)}["joined"] == "wrong"
    assert [(one.name, one.state) for one in server_findings(None)] == [("server home", "wrong")]


def test_a_home_that_was_named_is_judged_though_it_is_not_there(tmp_path: Path) -> None:
    found = {one.name: one.state for one in device_findings(tmp_path / "gone")}
    assert (found["joined"], found["disk"]) == ("wrong", "wrong")
    assert found["samples"] == found["outbox"] == found["privacy ledger"] == "skipped"


def test_nothing_is_changed_by_looking(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    home.samples.write_bytes(b"no database" * 500)
    home.clock.write_bytes(b"{}")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    main(["--home", str(tmp_path), "--server-home", str(tmp_path), "--json"])
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_the_exit_code_is_the_verdict_and_json_is_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(tmp_path), "--json"]) == 1
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    told = json.loads(text)
    assert told["ok"] is False
    assert all(one["remedy"] for one in told["findings"] if one["state"] == "wrong")


@pytest.mark.parametrize("arguments", [["--home"], ["x"], ["--json=1"]])
def test_wrong_usage_ends_with_two(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_without_a_profile_no_engine_is_missed() -> None:
    assert _engines_of(None) == []


def test_the_probes_are_models_of_one_operator() -> None:
    import onnx

    graph = onnx.load_from_string(ONNX_PROBE)
    onnx.checker.check_model(graph)
    assert [node.op_type for node in graph.graph.node] == ["Relu"]
    assert PROBE[4:8] == b"TFL3"
