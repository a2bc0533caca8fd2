"""Each fault of a device that the doctor should name, planted."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.support.fleet import FleetServer, running_server

from hedgerow.edge_agent.config import AgentConfig, MqttConfig, read_config
from hedgerow.edge_agent.doctor import main
from hedgerow.edge_agent.doctor.databases import check_database, check_ledger
from hedgerow.edge_agent.doctor.device import (
    check_certificate,
    check_clock,
    check_config,
    check_disk,
    check_joined,
    check_profile,
    check_slots,
)
from hedgerow.edge_agent.doctor.network import check_broker, check_server
from hedgerow.edge_agent.home import AgentHome
from hedgerow.edge_agent.link.renewal import read_facts
from hedgerow.edge_agent.slots.record import InstalledFile
from hedgerow.edge_agent.slots.slots import Slots
from hedgerow.shared.bundle import sha256_hex
from hedgerow.simulations.processes.broker import Broker, free_port

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FleetServer, AgentHome]]:
    folder = tmp_path_factory.mktemp("fleet")
    with running_server(folder / "server") as server:
        yield server, server.join_device(folder / "device", "dev-1")


def install(home: AgentHome, version: int, content: bytes) -> None:
    slots = Slots(home.slots, "pump")
    digest = sha256_hex(b"manifest %d" % version)
    (slots.prepare(digest) / "model.onnx").write_bytes(content)
    slots.seal(version, digest, {"model.onnx": InstalledFile(len(content), sha256_hex(content))})
    slots.activate(digest)


def test_a_folder_that_never_joined_is_told_how_to(tmp_path: Path) -> None:
    found = check_joined(AgentHome(tmp_path))
    assert found.state == "wrong"
    assert "agent.toml" in found.what
    assert "agent join TOKEN" in found.remedy


def test_a_joined_device_is_sound(fleet: tuple[FleetServer, AgentHome]) -> None:
    _, home = fleet
    assert check_joined(home).state == "ok"
    assert check_certificate(home).state == "ok"
    assert check_config(home)[0].state == "ok"


@pytest.mark.parametrize(
    ("at", "state", "says"),
    [("before", "wrong", "set the clock"), ("late", "warning", "renew"), ("after", "wrong", "--again")],
)
def test_certificate_out_of_its_time_is_named(
    fleet: tuple[FleetServer, AgentHome], at: str, state: str, says: str
) -> None:
    _, home = fleet
    facts = read_facts(home.identity_files().facts)
    now = {
        "before": facts.not_before_s - DAY_S,
        "late": facts.not_after_s - 60,
        "after": facts.not_after_s + 60,
    }
    found = check_certificate(home, now[at])
    assert found.state == state
    assert says in found.remedy


def test_certificate_that_is_no_pair_with_its_key_is_named(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        one, two = (server.join_device(tmp_path / name, name) for name in ("one", "two"))
    one.certificate.write_bytes(two.certificate.read_bytes())
    assert check_certificate(one).state == "wrong"
    one.certificate.write_bytes(b"rubbish")
    assert check_certificate(one).state == "wrong"


def test_clock_before_a_time_that_has_passed_is_named(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    assert check_clock(home).state == "skipped"
    known = time.time_ns() // 1000
    home.clock.write_bytes(msgspec.json.encode({"last_known_us": known}))
    assert check_clock(home, known + 1).state == "ok"
    assert check_clock(home, 0).state == "wrong"
    assert "1970" in check_clock(home, 0).what


def test_errors_of_the_two_files_are_those_of_the_agents_own_reader(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    home.config.write_text('server_url = "https://hub:1"\ndevice = "dev-1"\nlog_levle = "info"\n')
    found, config = check_config(home)
    assert (found.state, config) == ("wrong", None)
    assert "log_levle" in found.what

    home.profile.write_text('name = "x"\nversion = "one"\n')
    found, read = check_profile(home, AgentConfig("https://hub:1", "dev-1"))
    assert (found.state, read) == ("wrong", None)
    assert "version" in found.what
    assert str(home.profile) in found.what


@pytest.mark.parametrize(("free_mb", "state"), [(10, "wrong"), (300, "warning"), (5000, "ok")])
def test_disk_that_is_nearly_full_is_named(tmp_path: Path, free_mb: int, state: str) -> None:
    assert check_disk(tmp_path, free_mb * 1_000_000).state == state
    assert check_disk(tmp_path / "nowhere").state == "wrong"


def test_damaged_slots_are_named_and_left_as_they_are(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    assert [found.state for found in check_slots(home)] == ["skipped"]
    install(home, 1, b"one" * 100)
    install(home, 2, b"two" * 100)
    assert [found.state for found in check_slots(home)] == ["ok"]

    slots = Slots(home.slots, "pump")
    active = slots.active()
    assert active is not None
    (active / "model.onnx").write_bytes(b"two" * 99 + b"bad")
    (found,) = check_slots(home)
    assert found.state == "wrong"
    assert "version 1" in found.what
    assert slots.active() == active

    (slots.idle() / "model.onnx").unlink()
    assert "the baseline" in check_slots(home)[0].what


def test_damage_to_the_slot_to_go_back_to_is_a_warning(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    install(home, 1, b"one")
    install(home, 2, b"two")
    (Slots(home.slots, "pump").idle() / "model.onnx").write_bytes(b"bad")
    assert [found.state for found in check_slots(home)] == ["warning"]


def test_damaged_database_is_named_and_a_missing_one_not_made(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    assert check_database("samples", path, "-").state == "skipped"
    assert not path.exists()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x TEXT)")
    connection.executemany("INSERT INTO t VALUES (?)", [("row" * 500,)] * 200)
    connection.commit()
    connection.close()
    assert check_database("samples", path, "-").state == "ok"

    data = bytearray(path.read_bytes())
    data[8192:40960] = b"\xff" * (40960 - 8192)
    path.write_bytes(data)
    assert check_database("samples", path, "look").state == "wrong"
    path.write_bytes(b"this is no database at all" * 100)
    assert check_database("samples", path, "look").remedy == "look"


def test_ledger_whose_chain_is_broken_is_named(tmp_path: Path) -> None:
    from hedgerow.shared.privacy.ledger_file import SCHEMA

    path = tmp_path / "ledger.db"
    assert check_ledger(path).state == "skipped"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    connection.commit()
    assert check_ledger(path).state == "ok"
    connection.execute(
        "INSERT INTO entries VALUES (1, ?, ?, 1, ?, ?)", (b"x" * 32, b"s" * 32, b"{}", b"h" * 32)
    )
    connection.commit()
    connection.close()
    found = check_ledger(path)
    assert found.state == "wrong"
    assert "keep the file" in found.remedy


def test_server_that_answers_is_unreachable_or_is_another_one(
    fleet: tuple[FleetServer, AgentHome], tmp_path: Path
) -> None:
    _, home = fleet
    config = read_config(home.config)
    assert check_server(home, config).state == "ok"
    gone = msgspec.structs.replace(config, server_url=f"https://127.0.0.1:{free_port()}")
    assert "cannot be reached" in check_server(home, gone).what
    with running_server(tmp_path / "other") as other:
        strange = check_server(home, msgspec.structs.replace(config, server_url=other.url))
    assert strange.state == "wrong"
    assert "not the server of this fleet" in strange.what


def test_revoked_device_is_told(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        home = server.join_device(tmp_path / "device", "dev-1")
        server.fleet.devices.revoke("dev-1", "stolen")
        found = check_server(home, read_config(home.config))
    assert found.state == "wrong"
    assert "revoked" in found.what


def test_broker_that_accepts_is_gone_refuses_or_is_misconfigured(
    fleet: tuple[FleetServer, AgentHome], tmp_path: Path
) -> None:
    _, home = fleet
    config = read_config(home.config)

    def checked(mqtt: MqttConfig) -> tuple[str, str]:
        found = check_broker(home, msgspec.structs.replace(config, mqtt=mqtt))
        return found.state, found.what

    with Broker(tmp_path / "broker") as broker:
        assert checked(MqttConfig(broker.url))[0] == "ok"
    assert checked(MqttConfig(f"mqtt://127.0.0.1:{free_port()}"))[0] == "wrong"
    state, what = checked(MqttConfig("mqtts://127.0.0.1", tls="none"))
    assert state == "wrong"
    assert "does not go with" in what


def test_the_command_names_what_is_wrong_and_ends_with_one(
    fleet: tuple[FleetServer, AgentHome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, home = fleet
    home.profile.write_text("name = 3\n")
    nowhere = str(tmp_path / "no-server")
    assert main(["--home", str(home.path), "--server-home", nowhere, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    wrong = {found["name"] for found in told["findings"] if found["state"] == "wrong"}
    assert told["ok"] is False
    # nothing listens on the default broker's port here or it does: either is a finding of its own
    assert {"profile", "server home"} <= wrong <= {"profile", "server home", "broker", "disk"}

    assert main(["--home", str(tmp_path)]) == 1
    assert "agent join TOKEN" in capsys.readouterr().out
