"""What benchmarks measure with: memory that rose, rounds that were clean, percentiles, tables, recordings."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.configs import CONFIGS

from hedgerow.edge_agent.telemetry.csv_backfill import read_rows
from hedgerow.models.pump.machine import Machine, draw_machine
from hedgerow.server.rounds.plan import Plan
from hedgerow.server.rounds.records import RoundResult
from hedgerow.shared.errors import ConfigError, TransportError, UnsupportedError
from hedgerow.shared.profile import read_profile
from hedgerow.simulations.bench import agent, inference, memory
from hedgerow.simulations.bench.jobbed import RoundTimes
from hedgerow.simulations.demo.sensors import row_of
from hedgerow.simulations.processes.broker import Broker

PUMP = read_profile(CONFIGS / "profiles" / "pump.toml")
CLEARS = Path("/proc/self/clear_refs")


@pytest.mark.skipif(not os.access(CLEARS, os.W_OK), reason="needs Linux's clear_refs")
def test_memory_that_came_and_went_shows_as_the_peak() -> None:
    growth = memory.PeakGrowth()
    before = growth.bytes_
    block = np.ones(48 << 20, np.uint8)
    size = block.nbytes
    del block
    gc.collect()

    assert before < size / 4
    assert size * 0.9 < growth.bytes_ < size * 1.5


@pytest.mark.skipif(not os.access(CLEARS, os.W_OK), reason="needs Linux's clear_refs")
def test_each_measurement_starts_from_its_own_moment() -> None:
    first = memory.PeakGrowth()
    block = np.ones(32 << 20, np.uint8)
    second = memory.PeakGrowth()

    assert first.bytes_ - second.bytes_ < 2 * block.nbytes
    assert second.bytes_ < block.nbytes / 4


def test_where_the_kernel_does_not_say_the_peak_is_unsupported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "nowhere" / "clear_refs")
    with pytest.raises(UnsupportedError, match=r"peak memory needs Linux's .*clear_refs"):
        memory.PeakGrowth()
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name: x\nVmHWM:\t 12 kB\n")
    with pytest.raises(UnsupportedError, match="status has no VmRSS"):
        memory.PeakGrowth()


def test_fields_are_kilobytes_whatever_the_blanks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("VmRSSx:\t1 kB\nVmRSS:\t    100 kB\nVmHWM:\t  140 kB\n")

    assert memory.PeakGrowth().bytes_ == 40 * 1024
    assert (tmp_path / "clear_refs").read_text() == "5"


def outcome(replied: int) -> RoundResult:
    return RoundResult(**{name: _value(name, replied) for name in RoundResult.__struct_fields__})


def _value(name: str, replied: int) -> Any:
    return replied if name == "replied" else None


def plan(number: int) -> Plan:
    return Plan(**{name: number if name == "round" else None for name in Plan.__struct_fields__})  # type: ignore[arg-type]


def test_clean_rounds_are_timed_one_a_round_and_leave_no_problem() -> None:
    times = RoundTimes(3)
    for number in (1, 2):
        times.committed(number, outcome(3), np.zeros(2, np.float32), "a" * 64)

    assert len(times.commits) == 2 and times.commits == sorted(times.commits)
    assert times.problems == []


def test_whatever_is_not_clean_is_a_problem_with_round_and_device() -> None:
    times = RoundTimes(3)
    times.rejected(1, "dev-a", "non-finite", "NaN at 3")
    times.regressed(2, "dev-b", "went back")
    times.aborted(plan(3), 1, "too few")
    times.committed(4, outcome(2), np.zeros(2, np.float32), "a" * 64)

    assert times.problems == [
        "round 1: dev-a: non-finite: NaN at 3",
        "round 2: dev-b: went back",
        "round 3: 1 updates: too few",
        "round 4: 2 of 3 updates counted",
    ]
    assert len(times.commits) == 1


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=300))
def test_percentiles_are_those_of_the_ordered_times_in_microseconds(taken: list[int]) -> None:
    p50, p99 = inference._percentiles(np.array(taken, np.int64))

    assert p50 == pytest.approx(statistics.median(taken) / 1000, abs=6e-4)
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    assert p99 == pytest.approx(cuts[98] / 1000, abs=6e-4)
    assert min(taken) / 1000 - 1e-3 <= p50 <= p99 <= max(taken) / 1000 + 1e-3


def engine_row(ratio: float, **changes: Any) -> dict[str, Any]:
    plain = {
        "recipe": "digits-cnn", "runtime": "litert", "precision": "int8", "infer_p50_us": 11.5, "infer_p99_us": 20.25,
        "bare_p50_us": 10.0, "bare_p99_us": 15.0, "ratio_p50": ratio, "ratio_p99": 1.35,
    }  # fmt: skip
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("worst", "met", "verdict"), [(1.15, True, "1.15: met"), (1.16, False, "1.15: not met")]
)
def test_the_table_has_a_line_an_engine_and_its_verdict_last(worst: float, met: bool, verdict: str) -> None:
    rows = [engine_row(1.0), engine_row(worst, runtime="onnxruntime")]

    lines = inference.table({"rows": rows, "worst_ratio_p50": worst, "met": met}).splitlines()

    assert len(lines) == 4
    assert lines[1].split() == ["digits-cnn", "litert", "int8", "11.50", "20.25", "10.00", "15.00", "1.00"]
    assert lines[-1].endswith(f"wanted at most {verdict}")
    assert len({len(line) for line in lines[:3]}) == 1, "columns stand under their heads"


@pytest.mark.parametrize(("ratios", "met"), [((1.0, 1.15), True), ((1.0, 1.151), False), ((1.2, 0.9), False)])
def test_the_worst_engine_decides(
    ratios: tuple[float, float], met: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bundle:
        class manifest:  # noqa: N801
            artefacts = ratios

    async def bundles(folder: Path, seed: int) -> list[Any]:
        assert folder.is_dir() and seed == 7
        return [Bundle]

    monkeypatch.setattr(inference, "_bundles", bundles)
    monkeypatch.setattr(inference, "_row", lambda bundle, ratio, calls, rng: engine_row(ratio))

    found = inference.run(argparse.Namespace(seed=7, calls=1))

    assert (found["worst_ratio_p50"], found["met"], len(found["rows"])) == (max(ratios), met, 2)


def test_the_agents_recording_is_the_pumps_rows_at_one_a_second(tmp_path: Path) -> None:
    path = agent._recording(tmp_path, PUMP)

    counts: Counter[str] = Counter()
    rows = list(read_rows(path, PUMP, counts))
    expected = Machine(draw_machine(1), 1).rows(agent.ROWS)
    assert counts == Counter()
    assert [row_of(row.time_us) for row in rows] == list(range(agent.ROWS))
    for row, values in zip(rows, expected, strict=True):
        assert [value for _, value in row.values] == values.tolist()


def test_a_pump_profile_without_csv_cannot_be_recorded(tmp_path: Path) -> None:
    import msgspec

    with pytest.raises(ConfigError, match=r"no \[csv\] table"):
        agent._recording(tmp_path, msgspec.structs.replace(PUMP, csv=None))


def test_resident_memory_is_what_the_kernel_says_of_the_process() -> None:
    import psutil

    assert agent._resident_bytes(os.getpid()) == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


def test_an_install_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho 'no matching distribution' >&2\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))

    with pytest.raises(TransportError, match="the base install failed: no matching distribution"):
        agent._install_bytes()


def test_an_install_is_weighed_file_by_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "python"
    # argv: -m pip install --quiet --no-compile --target FOLDER SOURCE
    fake.write_text(
        '#!/bin/sh\nmkdir "$7/sub"\nhead -c 1000 /dev/zero > "$7/a"\nhead -c 234 /dev/zero > "$7/sub/b"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))

    assert agent._install_bytes() == 1234


def test_the_agents_figures_are_said_beside_what_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {
        "pss_bytes": 70_000_000,
        "rss_bytes": 90_000_000,
        "first_answer_p50_s": 1.25,
        "install_bytes": 123_000_000,
    }
    asked: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> dict[str, Any]:
        asked.append(args)
        return figures

    monkeypatch.setattr(agent, "run", run)

    assert agent.main(["--runtime", "litert", "--starts", "3", "--install", "--json"]) == 0

    said = capsys.readouterr()
    text = said.out + said.err
    for piece in (
        "70 MB PSS (wanted 85)",
        "90 MB RSS",
        "1.25 s p50 of 3 (wanted 1.5)",
        "123 MB (wanted 250)",
    ):
        assert piece in text
    assert json.loads(said.out.strip().splitlines()[-1]) == figures
    assert (asked[0].runtime, asked[0].starts, asked[0].install) == ("litert", 3, True)


def test_nothing_stays_when_the_broker_does_not_come_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Broker, "start", lambda self: (_ for _ in ()).throw(TransportError("no broker")))

    with pytest.raises(TransportError, match="no broker"):
        agent.run(argparse.Namespace(runtime="litert", starts=1, install=False))

    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_the_gate_refuses_ends_the_measurement_and_the_workbench(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed: list[bool] = []

    class Refused:
        accepted = False
        refusals = ("too slow", "too large")

    class Bench:
        def __init__(self, **_: Any) -> None: ...

        async def initial(self, *_: Any) -> bytes:
            return b""

        async def package(self, _: Any) -> Refused:
            return Refused()

        async def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(agent, "Workbench", Bench)
    with pytest.raises(TransportError, match="refused: too slow; too large"):
        asyncio.run(agent._package(tmp_path / "bundle", PUMP))

    assert closed == [True]
    shutil.rmtree(tmp_path / "bundle", ignore_errors=True)
