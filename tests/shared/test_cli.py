"""The command finds its groups, explains itself, and turns errors into exit codes and one clear line."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from hedgerow.shared import cli
from hedgerow.shared.errors import ConfigError


def group(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> None:
    def command(arguments: list[str]) -> int:
        if error is not None:
            raise error
        return len(arguments)

    monkeypatch.setattr(cli, "_load", lambda entry: command)
    entry = EntryPoint("thing", "x:y", cli.GROUP)
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "usage: hedgerow"),
        ([], 2, "usage: hedgerow"),
        (["--version"], 0, "hedgerow 0."),
    ],
)
def test_it_explains_itself(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert cli.main(arguments) == code
    assert said in capsys.readouterr().out


def test_every_group_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])

    text = capsys.readouterr().out
    for name in ("demo", "server", "agent", "job", "model", "bench", "doctor"):
        assert f"  {name}" in text


def test_an_unknown_group_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nonsense"]) == cli.EXIT_USAGE
    assert "no command group 'nonsense'" in capsys.readouterr().err


def test_arguments_and_exit_code_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    group(monkeypatch, None)

    assert cli.main(["thing", "a", "b"]) == 2


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("job.toml: wrong"), cli.EXIT_FAILED, "hedgerow thing: job.toml: wrong"),
        (ModuleNotFoundError("x", name="torch"), cli.EXIT_MISSING_EXTRA, "pip install 'hedgerow["),
        (KeyboardInterrupt(), cli.EXIT_INTERRUPTED, ""),
    ],
)
def test_errors_become_codes_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    group(monkeypatch, error)

    assert cli.main(["thing"]) == code
    assert said in capsys.readouterr().err


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    group(monkeypatch, ModuleNotFoundError("x", name="hedgerow.nothing"))

    with pytest.raises(ModuleNotFoundError):
        cli.main(["thing"])
