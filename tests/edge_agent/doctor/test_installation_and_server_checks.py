"""What the doctor says of the installation and of a server's folder, with each fault planted."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hedgerow.edge_agent.doctor import main
from hedgerow.edge_agent.doctor.finding import Finding, as_text, diagnosis
from hedgerow.edge_agent.doctor.installation import EXTRAS, check_engine, check_extra, check_python
from hedgerow.edge_agent.doctor.server_home import ROLES, check_authority, check_set_up, check_tuf
from hedgerow.edge_agent.inference import litert_runtime
from hedgerow.server.delivery.keys import KeyFolder
from hedgerow.server.delivery.repository import TufRepository
from hedgerow.server.pki.authority import CertificateAuthority
from hedgerow.shared.errors import UnsupportedError

YEAR_S = 365 * 86_400.0


def test_old_python_is_wrong() -> None:
    assert check_python((3, 10, 2)).state == "wrong"
    assert check_python((3, 11, 0)).state == "ok"
    assert check_python().state == "ok"


@pytest.mark.parametrize("name", EXTRAS)
def test_missing_extra_says_what_the_machine_cannot_do(name: str) -> None:
    modules, without = EXTRAS[name]
    assert check_extra(name, lambda _: True).state == "ok"
    missing = check_extra(name, lambda _: False)
    assert (missing.state, without in missing.what) == ("skipped", True)
    if len(modules) > 1:
        part = check_extra(name, lambda module: module != modules[0])
        assert (part.state, modules[0] in part.what) == ("warning", True)
        assert f"hedgerow[{name}]" in part.remedy


def test_engines_are_tried_by_running_a_model() -> None:
    assert check_engine("onnxruntime").state == "ok"
    assert check_engine("litert").state in ("ok", "skipped")
    assert check_engine("litert", lambda _: False).state == "skipped"


def test_engine_that_imports_but_does_not_run_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise UnsupportedError("compiled for another numpy")

    monkeypatch.setattr(litert_runtime, "interpreter_class", broken)
    found = check_engine("litert", lambda _: True)
    assert found.state == "wrong"
    assert "another numpy" in found.what


def test_table_shows_what_is_wrong_with_its_remedy_and_counts() -> None:
    found = diagnosis([Finding("a", "ok", "fine"), Finding("bb", "wrong", "broken", "mend it")])
    text = as_text(found)
    assert not found.ok
    assert "WRONG  bb  broken" in text
    assert "-> mend it" in text
    assert text.endswith("1 wrong, 0 to look at\n")
    assert diagnosis([Finding("c", "warning", "hm")]).ok


@pytest.fixture
def server(tmp_path: Path) -> Path:
    (tmp_path / "server.toml").write_text('server_id = "x"\n')
    CertificateAuthority.create(tmp_path / "pki")
    TufRepository(tmp_path / "tuf", KeyFolder(tmp_path / "secrets" / "tuf")).create()
    return tmp_path


def test_sound_server_home(
    server: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDGEROW_HOME", str(server / "no-device"))
    assert main(["--server-home", str(server), "--json"]) == 0
    found = {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["authority"] == "ok"
    assert {found[f"signed {role}"] for role in ROLES} == {"ok"}
    assert found["device"] == "skipped"


def test_server_that_was_never_set_up_or_whose_settings_are_no_toml(tmp_path: Path) -> None:
    assert "server init" in check_set_up(tmp_path).remedy
    (tmp_path / "server.toml").write_text("a = = b")
    assert "not TOML" in check_set_up(tmp_path).what


def test_authority_that_is_gone_damaged_foreign_open_or_expired(server: Path, tmp_path: Path) -> None:
    assert check_authority(server, time.time() + 40 * YEAR_S).state == "wrong"
    key = server / "pki" / "ca.key.pem"
    key.chmod(0o644)
    assert "chmod 600" in check_authority(server).remedy
    key.chmod(0o600)
    sound = key.read_bytes()
    CertificateAuthority.create(tmp_path / "other")
    key.write_bytes((tmp_path / "other" / "ca.key.pem").read_bytes())
    assert "not the key of" in check_authority(server).what
    key.write_bytes(sound[:40])
    assert "damaged" in check_authority(server).what
    key.unlink()
    assert "backup" in check_authority(server).remedy


def test_signatures_that_have_run_out_are_named_by_role(server: Path) -> None:
    soon = {found.name: found.state for found in check_tuf(server, time.time() + 2 * 86_400)}
    assert soon == {
        "signed root": "ok", "signed targets": "ok", "signed snapshot": "ok", "signed timestamp": "wrong",
    }  # fmt: skip
    assert {found.state for found in check_tuf(server, time.time() + 2 * YEAR_S)} == {"wrong"}
    (server / "tuf" / "metadata" / "timestamp.json").write_bytes(b"{")
    assert "cannot be read" in check_tuf(server)[3].what
    (server / "tuf" / "metadata" / "timestamp.json").unlink()
    assert "no timestamp" in check_tuf(server)[3].what


def test_help_has_an_example_and_wrong_usage_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Example: hedgerow doctor" in capsys.readouterr().out
    assert main(["--colour"]) == 2
