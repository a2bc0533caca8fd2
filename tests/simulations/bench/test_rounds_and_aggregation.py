"""The two benches of the link run, count what they say, and the server's memory stays bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from hedgerow.simulations.bench import aggregation, rounds


def measured(module: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"hedgerow.simulations.bench.{module}", *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


@pytest.mark.system
@pytest.mark.slow
def test_sixteen_large_updates_cost_the_server_at_most_five_model_copies() -> None:
    result = measured("aggregation", "--updates", "16", "--values", "6000000")
    assert result["peak_growth_copies"] <= 5.0, result
    assert result["peak_growth_copies"] > 1.0, "a sum and an upload at least"


@pytest.mark.system
@pytest.mark.slow
def test_the_rounds_bench_measures_every_round_it_says() -> None:
    result = measured("rounds", "--rounds", "5", "--no-stock")
    assert [row["model"] for row in result["rows"]] == ["empty", "10 MB"]
    assert all(row["rounds"] == 5 and row["ratio"] is None and row["p50_ms"] > 0 for row in result["rows"])
    assert result["met"] is False, "no ratio, so nothing was met"


def test_a_ratio_is_stocks_median_over_ours() -> None:
    row = rounds._row("empty", [0.01, 0.02, 0.03], [4.0, 6.0, 8.0])
    assert (row["p50_ms"], row["stock_p50_ms"], row["ratio"]) == (20.0, 6000.0, 300.0)
    assert "300x" in rounds.table({"rows": [row]})


@pytest.mark.parametrize("main", [rounds.main, aggregation.main])
def test_wrong_options_are_refused(main: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--rounds", "0"] if main is rounds.main else ["--updates", "0"])
    assert ended.value.code == 2
