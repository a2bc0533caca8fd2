"""``hedgerow bench``: which benchmark runs, and how its end becomes an exit code."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from hedgerow.shared.errors import TransportError
from hedgerow.simulations.bench import cli


def test_help_lists_every_benchmark_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.BENCHES)
    assert "example: hedgerow bench" in text
    assert cli.main([]) == 2


def test_unknown_benchmark_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["speed"]) == 2
    assert "no benchmark 'speed'" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.BENCHES)
def test_every_listed_benchmark_exists(name: str) -> None:
    assert find_spec(f"hedgerow.simulations.bench.{name.replace('-', '_')}") is not None


def test_options_are_checked_by_the_benchmark_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["agent", "--starts", "0"]) == 2
    assert "--starts" in capsys.readouterr().err
    assert cli.main(["agent", "--help"]) == 0


def test_failure_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hedgerow.simulations.bench import agent

    def fails(_: object) -> None:
        raise TransportError("no broker")

    monkeypatch.setattr(agent, "run", fails)
    assert cli.main(["agent"]) == 1
    assert capsys.readouterr().err == "hedgerow bench agent: no broker\n"


def test_asking_for_help_loads_no_benchmark() -> None:
    code = (
        "import sys; from hedgerow.simulations.bench.cli import main; main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'flwr', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
