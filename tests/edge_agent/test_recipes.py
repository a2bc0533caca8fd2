"""Asking a child process which recipes can be trained here."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from hedgerow.edge_agent.recipes import InstalledRecipes

WAIT_S = 60.0


def asked(
    monkeypatch: pytest.MonkeyPatch, folder: Path, script: str
) -> tuple[InstalledRecipes, threading.Event]:
    """Ask a stand-in for the interpreter that runs ``script``."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("hedgerow.edge_agent.recipes.sys.executable", str(program))
    known = threading.Event()
    found = InstalledRecipes(known.set)
    found.start()
    return found, known


@pytest.mark.slow
def test_recipes_of_this_installation_are_found_with_their_hashes_and_torch_stays_outside() -> None:
    known = threading.Event()
    before = "torch" in sys.modules
    found = InstalledRecipes(known.set)
    found.start()
    assert known.wait(WAIT_S)
    assert {report.name for report in found.found()} >= {"anomaly-autoencoder", "digits-cnn"}
    assert all(len(report.code_hash) == 64 for report in found.found())
    assert ("torch" in sys.modules) == before


def test_device_that_trains_nothing_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, known = asked(monkeypatch, tmp_path, "echo '[]'")
    assert known.wait(WAIT_S)
    assert found.found() == ()


@pytest.mark.parametrize("script", ["echo rubbish", "exit 1", "head -c 200000 /dev/zero"])
def test_child_that_fails_leaves_a_device_that_only_infers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    found, known = asked(monkeypatch, tmp_path, script)
    found._thread.join(WAIT_S)
    assert found.found() == ()
    assert not known.is_set()
    assert "inference only" in caplog.text


def test_child_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hedgerow.edge_agent.recipes.DEADLINE_S", 0.2)
    found, _ = asked(monkeypatch, tmp_path, "exec sleep 60")
    found._thread.join(WAIT_S)
    assert not found._thread.is_alive()
    assert "not known after" in caplog.text


def test_stopping_ends_the_child_and_no_other_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, known = asked(monkeypatch, tmp_path, "exec sleep 60")
    found.stop()
    found._thread.join(WAIT_S)
    assert found._child is None or found._child.returncode is not None
    assert not known.is_set()
