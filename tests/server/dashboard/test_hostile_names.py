"""Whatever a device, a job or a model is called, a page shows it as text; whatever a number is, the page comes."""

from __future__ import annotations

import html
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.operator import NOW, RecordInMemory, device, event, job, model, round_view

from hedgerow.server.api.operators import Operator, Role
from hedgerow.server.dashboard import formats, pages
from hedgerow.server.dashboard.routes import templates
from hedgerow.server.monitor.views import AlertView, RolloutView, ServingView

ANNA = Operator("00000000", "anna", Role.ADMIN)
BUILDERS: dict[str, Any] = {
    "overview.html": (pages.overview, ()),
    "fleet.html": (pages.fleet, ()),
    "jobs.html": (pages.jobs, ()),
    "job.html": (pages.job, ("j1",)),
    "models.html": (pages.models, ()),
}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></tr></table><h1>x</h1>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;script&gt;",
    "\u202egnp.exe",
    "<!--",
    "]]><svg/onload=alert(1)>",
    "a" * 4000,
    "\x00\x01\ufffe",
]


def record_named(name: str) -> RecordInMemory:
    """Return a fleet in which everything that has a name has this one."""
    served = ServingView(name, 2, 1, name, name, name, name)
    one = device(name, groups=(name,), profile=name, trainer=name, agent_version=name, serving=(served,))
    named_job = job(
        "j1", name=name, recipe=name, reason=name, model=name, model_version=3, metric=name, state="running"
    )
    return RecordInMemory(
        [one],
        [named_job],
        {"j1": [msgspec.structs.replace(round_view(n), reasons={name: 1}, scores={name: 0.5}) for n in (1, 2)]},
        [
            msgspec.structs.replace(
                model(2), model=name, task=name, aliases=("champion", name), privacy_mode=name, manifest_sha256=name,
                gate=((name, False, 0.1, 0.2),), artefacts=((name, name, name, 5),), scores={name: 0.5},
            )
        ],
        [RolloutView("r1", name, 2, name, name, NOW, {name: 1})],
        [msgspec.structs.replace(event(1), device=name, kind=name, text=name, severity=name)],
    )  # fmt: skip


def rendered(template: str, record: RecordInMemory, alerts: list[AlertView] | None = None) -> str:
    build, arguments = BUILDERS[template]
    values = build(record, lambda: alerts or [], *arguments)
    common = {"operator": ANNA, "csrf": "c", "now_us": NOW, "path": "/", "fragment": False}
    return templates.get_template(template).render(**{**common, **values})


class Outline(HTMLParser):
    """Notes the tags of a page with their attributes' names, and what of it is text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(page: str) -> Outline:
    made = Outline()
    made.feed(page)
    made.close()
    return made


def alerts_named(name: str) -> list[AlertView]:
    return [AlertView(name, "critical", name, name, NOW)]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:24])
@pytest.mark.parametrize("template", sorted(BUILDERS))
def test_a_hostile_name_changes_no_tag_and_no_attribute_of_a_page(template: str, name: str) -> None:
    plain = outline(rendered(template, record_named("plain"), alerts_named("plain")))
    found = outline(rendered(template, record_named(name), alerts_named(name)))

    assert found.tags == plain.tags
    assert not any(attribute.startswith("on") for _, attributes in found.tags for attribute in attributes)


@pytest.mark.parametrize(
    "name", [name for name in HOSTILE if "\x00" not in name], ids=lambda name: repr(name)[:24]
)
@pytest.mark.parametrize("template", sorted(BUILDERS))
def test_a_name_is_readable_as_it_is(template: str, name: str) -> None:
    assert name in outline(rendered(template, record_named(name), alerts_named(name))).text


@settings(max_examples=30)
@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=30), st.sampled_from(sorted(BUILDERS)))
def test_no_text_at_all_changes_a_page_s_tags(name: str, template: str) -> None:
    plain = outline(rendered(template, record_named("plain"), alerts_named("plain")))

    assert outline(rendered(template, record_named(name), alerts_named(name))).tags == plain.tags


def test_links_lead_to_this_server_whatever_the_id(tmp_path: Path) -> None:
    record = RecordInMemory([], [job("javascript:alert(1)"), job("//evil.example"), job("j3")], {})

    page = rendered("jobs.html", record)

    links = [value for value in outline(page).values if "evil" in value or "alert" in value]
    assert links
    assert all(value.startswith("/jobs/") for value in links)
    assert list(tmp_path.iterdir()) == []


ODD_TIMES = [0, -1, 2**53, 2**62, -(2**62), 10**400, -(10**400)]


@pytest.mark.parametrize("at_us", ODD_TIMES, ids=lambda at: f"{at:.0e}" if abs(at) < 10**300 else "huge")
def test_a_device_whose_clock_says_anything_does_not_take_the_page_away(at_us: int) -> None:
    record = RecordInMemory([device()], [], {}, [], [], [event(1, at_us=at_us)])

    page = rendered("overview.html", record)

    assert "alarm flow 62 %" in page


@pytest.mark.parametrize(
    ("at_us", "shown"),
    [
        (None, "–"),
        (0, "1970-01-01 00:00:00 UTC"),
        (951_782_400_000_000, "2000-02-29 00:00:00 UTC"),
        (999_999, "1970-01-01 00:00:00 UTC"),
        (-1_000_000, "1969-12-31 23:59:59 UTC"),
        (253_402_300_799_000_000, "9999-12-31 23:59:59 UTC"),
        (253_402_300_800_000_000, "no date"),
        (2**62, "no date"),
        (-(2**62), "no date"),
        (10**400, "no date"),
    ],
)
def test_a_time_is_shown_in_utc_or_said_to_be_none(at_us: int | None, shown: str) -> None:
    assert formats.when(at_us) == shown


@given(st.integers(-(2**63), 2**63))
def test_every_time_that_a_device_can_send_can_be_shown(at_us: int) -> None:
    assert formats.when(at_us)


@given(st.floats(allow_nan=False) | st.integers(0, 2**63))
def test_a_size_is_shown_within_a_twentieth_of_what_it_is(n: float) -> None:
    text = formats.size(n)
    amount, unit = text.split(" ")
    shown = float(amount) * 1000 ** ["B", "kB", "MB", "GB", "TB"].index(unit)

    assert shown == pytest.approx(n, rel=0.051, abs=0.5)


@given(st.floats(-1e307, 1e307))
def test_a_number_is_shown_to_three_digits(value: float) -> None:
    assert float(formats.number(value)) == pytest.approx(value, rel=5.1e-3)
    assert formats.number(None) == "–"


@pytest.fixture
def every_page() -> Iterator[list[str]]:
    yield [
        rendered(template, RecordInMemory([device()], [job()], {"j1": []}, [model()]))
        for template in BUILDERS
    ]


def test_pages_hold_no_inline_script_or_style(every_page: list[str]) -> None:
    for page in every_page:
        assert "<style" not in page
        scripts = [attributes for tag, attributes in outline(page).tags if tag == "script"]
        assert scripts == [("src", "defer")]


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name.lower())
def test_who_may_not_roll_back_sees_no_form_for_it(role: Role) -> None:
    values = pages.models(RecordInMemory(all_models=[model()]), list)
    common = {
        "operator": Operator("0", "x", role),
        "csrf": "c",
        "now_us": NOW,
        "path": "/models",
        "fragment": False,
    }
    page = templates.get_template("models.html").render(**{**common, **values})

    assert ("/models/pump/rollback" in page) is (role >= Role.OPERATOR)


def test_a_fragment_leaves_out_what_stands_around_it() -> None:
    values = pages.fleet(RecordInMemory([device()]), list)
    common = {"operator": ANNA, "csrf": "secret-csrf", "now_us": NOW, "path": "/fleet"}
    template = templates.get_template("fleet.html")
    whole = template.render(**{**common, **values, "fragment": False})
    part = template.render(**{**common, **values, "fragment": True})

    assert "secret-csrf" in whole
    assert "secret-csrf" not in part
    assert html.escape("pump-1") in part
