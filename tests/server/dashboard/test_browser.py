"""A real browser opens every page, sees no console error, and sees a round arrive without a reload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.server.dashboard.test_pages import PAGES, full_record
from tests.support.operator import OperatorListener, operator_listener, round_view
from tests.support.tools import need_program

from hedgerow.server.api.operators import Role

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.chromium, pytest.mark.slow]

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    path = need_program("chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[OperatorListener]:
    with operator_listener(tmp_path, full_record()) as running:
        yield running


def test_every_page_opens_and_a_round_arrives_live(browser: object, listener: OperatorListener) -> None:
    page = browser.new_page()  # type: ignore[attr-defined]
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))

    page.goto(f"{listener.url}/")
    page.fill("#token", listener.tokens[Role.VIEWER])
    page.click("button")
    for path in PAGES:
        assert page.goto(listener.url + path).ok
        sync_api.expect(page.locator("#live-state")).to_have_text("live")

    page.goto(f"{listener.url}/jobs/j1")
    sync_api.expect(page.locator("#live-state")).to_have_text("live")
    assert page.locator("[data-testid=round-row]").count() == 2
    page.evaluate("window.sameDocument = true")
    listener.record.all_rounds["j1"].append(round_view(3, 0.9))
    listener.record.all_jobs[0] = msgspec.structs.replace(listener.record.all_jobs[0], round=3)
    listener.context.bus.publish("round.committed", job_id="j1", round=3)

    sync_api.expect(page.locator("[data-testid=round-row]")).to_have_count(3)
    sync_api.expect(page.locator("[data-testid=round]")).to_have_text("3")
    assert page.evaluate("window.sameDocument") is True
    assert page.locator("polyline.curve").first.get_attribute("points").count(",") == 3
    assert problems == []
    page.close()
