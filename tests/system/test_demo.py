"""The main job, end to end, with real processes: it succeeds, a browser sees it, Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.support.skab import skab_folder
from tests.support.tools import need_program

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.xdist_group("demo")]

DEMO = [sys.executable, "-m", "hedgerow.shared.cli", "demo"]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]
PAGES = ["/", "/fleet", "/jobs", "/models"]


def check(result: dict[str, Any], devices: int) -> None:
    assert result["shortfalls"] == []
    assert result["success"] is True
    private, vision = result["jobs"]
    assert private["mode"] == "example"
    for job in (private, vision):
        assert job["federated"] > job["untrained"]
        assert job["serving"] == devices
        assert {"onnxruntime.int8", "litert.int8"} <= set(job["artefacts"])
    assert len(result["devices"]) == devices
    assert {device["runtime"] for device in result["devices"]} == {"onnxruntime", "litert"}
    for device in result["devices"]:
        assert 0 < device["epsilon"] <= 8
        assert device["delta"] <= device["delta_allowed"]
        assert device["precision"] == "int8"


def look(url: str, token: str) -> list[str]:
    """Open every page of a real server in a real browser; return its console errors."""
    problems: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need_program("chromium"), args=FLAGS)
        page = browser.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{url}/login")
        page.fill("#token", token)
        page.click("button")
        for path in PAGES:
            assert page.goto(url + path).ok
            sync_api.expect(page.locator("#live-state")).to_have_text("live")
        page.goto(f"{url}/jobs")
        page.click("text=pump-anomaly")
        assert page.locator("[data-testid=round-row]").count() >= 8
        assert page.locator("[data-testid=chart]").count() >= 1
        page.goto(f"{url}/")
        assert "vibration-2" in page.inner_text("[data-testid=events]")
        browser.close()
    return problems


@pytest.mark.chromium
def test_the_demo_succeeds_shows_itself_and_leaves_nothing(tmp_path: Path) -> None:
    need_program("chromium")
    before = set(Path(tempfile.gettempdir()).glob("hedgerow-demo-*"))
    told = tmp_path / "told"
    with told.open("w") as stderr:
        demo = subprocess.Popen([*DEMO, "--json", "--keep"], stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert demo.stdout is not None
        line = demo.stdout.readline()
        assert line, told.read_text()[-3000:]
        result = json.loads(line)
        check(result, 5)
        assert result["alarm"]["top_channel"] == result["planted"]["channel"]
        assert result["alarm"]["delay_windows"] <= 2
        assert result["alarm"]["bundle"] == result["jobs"][0]["manifest_sha256"]

        match = None
        while match is None:
            match = re.search(r"dashboard: (\S+)  token: (\S+)", told.read_text())
        assert look(match[1], match[2]) == []
    finally:
        demo.send_signal(signal.SIGINT)
        code = demo.wait(60)
        demo.stdout.close() if demo.stdout else None
    assert code == 0
    assert set(Path(tempfile.gettempdir()).glob("hedgerow-demo-*")) - before == set()


@pytest.mark.skab
def test_the_demo_succeeds_on_real_recordings() -> None:
    folder = skab_folder() / "valve1"

    done = subprocess.run(
        [*DEMO, "--csv", str(folder), "--json"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    check(result, 5)
    assert result["labelled"]["rows"] > 3000
