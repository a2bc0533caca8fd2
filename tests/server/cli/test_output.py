"""How commands print: cells as they are, JSON on one line, exit codes; how they find a server and report its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.operator import RecordInMemory, job, model, operator_listener

from hedgerow.server.api.operators import Role
from hedgerow.server.cli import job as job_command
from hedgerow.server.cli import model as model_command
from hedgerow.server.cli.client import OperatorClient, _check, default_home
from hedgerow.server.cli.output import print_json, print_table, run_app, say
from hedgerow.shared import limits
from hedgerow.shared.errors import AuthError, ConfigError, TransportError

BRACKETS = [
    "[bold]x[/bold]",
    "[/]",
    "[/nothing]",
    "[link=http://evil]x",
    "[",
    "]",
    ":smile:",
    "[red",
    "\\[x]",
]


@pytest.mark.parametrize("cell", BRACKETS)
def test_a_cell_is_printed_as_it_is(
    cell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    print_table(("name", "state"), [(cell, "ok")], "none")

    assert cell in capsys.readouterr().out


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), min_size=1, max_size=4))
def test_no_text_in_a_cell_ends_a_command(capsys: pytest.CaptureFixture[str], rows: list[list[str]]) -> None:
    print_table(("a", "b"), rows, "none")

    assert capsys.readouterr().out.startswith("a")


@pytest.mark.parametrize("text", [*BRACKETS, "no job yet; submit one: hedgerow job submit FILE"])
def test_an_empty_table_says_what_to_do_next_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a",), [], text)

    assert capsys.readouterr().out.strip() == text


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(blacklist_categories=["Cs"]), max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"])), inner, max_size=3),
        max_leaves=6,
    )
)  # fmt: skip
def test_json_is_one_line_that_any_program_reads(capsys: pytest.CaptureFixture[str], value: Any) -> None:
    print_json(value)
    text = capsys.readouterr().out

    assert text.endswith("\n")
    assert "\n" not in text[:-1]
    assert json.loads(text) == value


def app_that(act: Any) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def go(n: int = 0) -> int:
        return int(act(n) or 0)

    return app


def raises(error: BaseException) -> Any:
    def act(_n: int) -> int:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "arguments", "code"),
    [
        (lambda n: n, ["--n", "3"], 3),
        (lambda _: None, [], 0),
        (raises(typer.Exit(7)), [], 7),
        (raises(typer.Abort()), [], 130),
        (lambda n: n, ["--n", "three"], 2),
        (lambda n: n, ["--nothing"], 2),
        (lambda n: n, ["extra"], 2),
    ],
)
def test_what_a_command_returns_is_its_exit_code_and_wrong_usage_is_2(
    act: Any, arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(app_that(act), "thing", arguments) == code
    assert ("Usage" in capsys.readouterr().err) is (code == 2)


@pytest.mark.parametrize("error", [ConfigError("x"), ValueError("x"), KeyError("x")])
def test_an_error_that_is_not_about_usage_goes_on_to_whoever_reports_it(error: Exception) -> None:
    with pytest.raises(type(error), match="x"):
        run_app(app_that(raises(error)), "thing", [])


def answer(status: int, body: Any) -> httpx.Response:
    if isinstance(body, bytes):
        return httpx.Response(status, content=body)
    return httpx.Response(status, json=body)


@pytest.mark.parametrize("status", [200, 201, 204])
def test_success_is_no_error(status: int) -> None:
    _check(answer(status, {}))


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, {"detail": "unknown token"}, AuthError, "unknown token"),
        (403, {"detail": "needs admin"}, AuthError, "needs admin"),
        (400, {"detail": "job: wrong"}, ConfigError, "job: wrong"),
        (404, {"detail": "no job"}, ConfigError, "no job"),
        (422, {"detail": [{"msg": "too long"}]}, ConfigError, "too long"),
        (500, b"Internal Server Error", ConfigError, "HTTP 500"),
        (502, b"<html>", ConfigError, "HTTP 502"),
        (500, b"\xff\xfe", ConfigError, "HTTP 500"),
        (400, [], ConfigError, "HTTP 400"),
        (400, {}, ConfigError, "HTTP 400"),
        (303, b"", ConfigError, "HTTP 303"),
    ],
)
def test_a_refusal_is_told_in_the_server_s_words_or_by_its_number(
    status: int, body: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        _check(answer(status, body))


def test_a_server_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    client = OperatorClient("http://127.0.0.1:9", "t")

    with pytest.raises(TransportError, match=r"http://127\.0\.0\.1:9: .*hedgerow server run"):
        client.get("jobs")
    with pytest.raises(TransportError, match="event stream broke off"):
        next(client.news())
    assert list(tmp_path.iterdir()) == []


def test_an_address_without_a_token_is_refused_and_the_environment_may_hold_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEDGEROW_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="--token or HEDGEROW_TOKEN"):
        OperatorClient.find(None, "http://127.0.0.1:9", None)

    with operator_listener(tmp_path, RecordInMemory()) as running:
        monkeypatch.setenv("HEDGEROW_TOKEN", running.tokens[Role.VIEWER])
        assert OperatorClient.find(None, running.url, None).get("jobs") == []
        with pytest.raises(AuthError, match="role operator"):
            OperatorClient.find(None, running.url, None).post("jobs", {"toml": ""})
        named = OperatorClient.find(None, running.url, running.tokens[Role.OPERATOR])
        assert named.post("jobs", {"toml": ""}) == {"job_id": "j9"}, "the command line is the stronger"
        assert named.post("jobs/j1/cancel") is None


def test_the_folder_is_the_environment_s_or_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDGEROW_SERVER_HOME", "/srv/hedgerow")
    assert default_home() == Path("/srv/hedgerow")
    monkeypatch.setenv("HEDGEROW_SERVER_HOME", "~/h")
    assert default_home() == Path.home() / "h"
    monkeypatch.delenv("HEDGEROW_SERVER_HOME")
    assert default_home() == Path.home() / ".hedgerow" / "server"


def test_a_folder_without_a_server_is_told_apart_from_a_server_that_is_down(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hedgerow server init"):
        OperatorClient.find(tmp_path / "nothing", None, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "not UTF-8 text"),
        (b"#" * (limits.MAX_TOML_BYTES + 1), f"larger than {limits.MAX_TOML_BYTES} bytes"),
    ],
)
def test_a_job_file_that_cannot_be_sent_is_refused_before_any_server_is_asked(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "job.toml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=rf"job\.toml: {said}"):
        job_command.main(["submit", str(file), "--url", "http://127.0.0.1:9", "--token", "t"])


def test_names_in_brackets_reach_the_terminal_in_every_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    record = RecordInMemory([], [job("[/j]", recipe="[/r]")], {}, [model(2, ("[/a]",))])
    with operator_listener(tmp_path, record) as running:
        at = ["--url", running.url, "--token", running.tokens[Role.VIEWER]]
        assert job_command.main(["list", *at]) == 0
        assert model_command.main(["list", *at]) == 0
        found = capsys.readouterr().out

    assert all(cell in found for cell in ("[/j]", "[/r]", "[/a]"))


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("[b]one[/b]")

    assert capsys.readouterr().out == "[b]one[/b]\n"
