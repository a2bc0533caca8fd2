"""The workbench with its real child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.support.bundles import package_request

from hedgerow.models.workbench import frames
from hedgerow.models.workbench.client import Workbench
from hedgerow.models.workbench.messages import Failure
from hedgerow.shared.errors import ConfigError, ContentError, TransportError
from hedgerow.shared.job import GateSpec

ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def bench(runner: asyncio.Runner) -> Iterator[Workbench]:
    """One workbench for the module: a child takes seconds to load torch."""
    made = Workbench(environment=ENVIRONMENT)
    yield made
    runner.run(made.close())


def test_one_child_describes_makes_scores_and_packages(
    runner: asyncio.Runner, bench: Workbench, tmp_path: Path
) -> None:
    async def scenario() -> None:
        about = await bench.describe("digits-cnn", {"width": 16})
        model = await bench.initial("digits-cnn", {"width": 16}, 7)
        first = bench.pid

        assert about.parameters["width"] == 16
        assert about.metric == "accuracy"
        assert about.input.shape == (8, 8, 1)
        assert len(about.recipe_hash) == 64
        assert len(model) == 4 * about.n_parameters
        assert model == await bench.initial("digits-cnn", {"width": 16}, 7)
        assert model != await bench.initial("digits-cnn", {"width": 16}, 8)
        scores = await bench.score("digits-cnn", {"width": 16}, model)
        assert 0 <= scores["accuracy"] <= 0.5
        request = package_request("digits-cnn", model, tmp_path / "b", parameters={"width": 16})
        result = await bench.package(request)
        assert result.scores["accuracy"] == scores["accuracy"]
        assert (tmp_path / "b" / "manifest.json").is_file()
        assert bench.pid == first

    runner.run(scenario())


def test_errors_come_back_as_what_they_are_and_the_child_lives_on(
    runner: asyncio.Runner, bench: Workbench
) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="no recipe 'nothing'"):
            await bench.describe("nothing", {})
        first = bench.pid
        with pytest.raises(ConfigError, match="wide"):
            await bench.describe("digits-cnn", {"wide": 3})
        with pytest.raises(ContentError, match="model of 2 values"):
            await bench.score("digits-cnn", {}, b"\0" * 8)
        assert bench.pid == first

    runner.run(scenario())


def test_a_refused_candidate_is_an_answer_not_an_error(
    runner: asyncio.Runner, bench: Workbench, tmp_path: Path
) -> None:
    async def scenario() -> None:
        model = await bench.initial("anomaly-autoencoder", {}, 0)
        gate = GateSpec(min_agreement=0.9999, max_metric_drop=1.0)
        result = await bench.package(package_request("anomaly-autoencoder", model, tmp_path / "b", gate=gate))
        assert not result.accepted
        assert sorted(reason.split(":")[0] for reason in result.refusals) == [
            "litert.int8.agreement",
            "onnxruntime.int8.agreement",
        ]

    runner.run(scenario())


def test_requests_at_once_are_answered_each_with_its_own(runner: asyncio.Runner, bench: Workbench) -> None:
    async def scenario() -> None:
        seeds = range(6)
        models = await asyncio.gather(*(bench.initial("digits-cnn", {}, seed) for seed in seeds))
        again = [await bench.initial("digits-cnn", {}, seed) for seed in seeds]

        assert list(models) == again
        assert len(set(models)) == 6

    runner.run(scenario())


def test_a_child_that_dies_is_named_and_replaced(runner: asyncio.Runner, bench: Workbench) -> None:
    async def scenario() -> None:
        await bench.describe("digits-cnn", {})
        first = bench.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        waiting = asyncio.create_task(bench.describe("digits-cnn", {}))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(TransportError, match="ended with status -9"):
            await waiting

        await bench.describe("digits-cnn", {})
        assert bench.pid not in (None, first)

    runner.run(scenario())


def test_an_answer_to_a_cancelled_request_is_never_taken_for_the_next(
    runner: asyncio.Runner, bench: Workbench
) -> None:
    async def scenario() -> None:
        await bench.describe("digits-cnn", {})
        lost = asyncio.create_task(bench.initial("digits-cnn", {}, 1))
        await asyncio.sleep(0.001)
        lost.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await lost

        assert (await bench.describe("anomaly-autoencoder", {})).task == "anomaly"

    runner.run(scenario())


def test_closing_ends_the_child_and_the_next_request_starts_another(
    runner: asyncio.Runner, bench: Workbench
) -> None:
    async def scenario() -> None:
        await bench.describe("digits-cnn", {})
        pid = bench.pid
        assert pid is not None
        await bench.close()
        await bench.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert bench.pid is None

    runner.run(scenario())


def test_a_request_that_takes_too_long_ends_the_child() -> None:
    async def scenario() -> None:
        bench = Workbench(timeout_s=0.05, environment=ENVIRONMENT)
        with pytest.raises(TransportError, match=r"longer than 0\.05 s"):
            await bench.describe("digits-cnn", {})
        assert bench.pid is None

    asyncio.run(scenario())


def test_the_child_answers_garbage_prints_only_frames_and_ends_with_its_input() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "hedgerow.models.workbench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    frames.write_frame(child.stdin, b"\xff\x00garbage")  # type: ignore[arg-type]
    answer = frames.read_frame(child.stdout)  # type: ignore[arg-type]
    child.stdin.close()

    assert child.wait(timeout=30) == 0
    assert child.stdout.read() == b""
    child.stdout.close()
    assert answer is not None
    assert msgspec.msgpack.decode(answer, type=Failure).kind == "HedgerowError"


def test_the_client_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, hedgerow.models.workbench.client\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'onnx', 'onnxruntime', 'flwr'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
