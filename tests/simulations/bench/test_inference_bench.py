from __future__ import annotations

import json

import numpy as np
import pytest

from hedgerow.simulations.bench import inference


def test_the_bench_measures_both_engines_and_precisions_of_both_models(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert inference.main(["--calls", "300", "--json"]) == 0

    said = capsys.readouterr().out.splitlines()
    result = json.loads(said[-1])
    assert {(row["recipe"], row["runtime"], row["precision"]) for row in result["rows"]} == {
        (recipe, runtime, precision)
        for recipe in inference.RECIPES
        for runtime in ("onnxruntime", "litert")
        for precision in ("float32", "int8")
    }
    for row in result["rows"]:
        assert 0 < row["infer_p50_us"] <= row["infer_p99_us"]
        assert 0 < row["bare_p50_us"] <= row["bare_p99_us"]
        assert row["ratio_p50"] == pytest.approx(row["infer_p50_us"] / row["bare_p50_us"], abs=0.01)
    assert result["worst_ratio_p50"] == max(row["ratio_p50"] for row in result["rows"])
    assert result["met"] == (result["worst_ratio_p50"] <= 1.15)
    assert "worst ratio" in said[-2]


def test_calls_take_turns_and_each_is_timed_as_often() -> None:
    seen: list[str] = []
    ours, bare = inference._interleaved(
        lambda: seen.append("ours"), lambda: seen.append("bare"), 400, np.random.default_rng(0)
    )

    timed = seen[2 * inference.WARM_UP :]
    assert len(ours) == len(bare) == 400
    assert timed.count("ours") == timed.count("bare") == 400
    assert all(set(timed[n : n + 2]) == {"ours", "bare"} for n in range(0, 800, 2))
    assert 100 < sum(timed[n] == "ours" for n in range(0, 800, 2)) < 300, "neither always goes first"


@pytest.mark.parametrize("calls", ["0", "-1", "many"])
def test_wrong_usage_is_said(calls: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        inference.main(["--calls", calls])

    assert caught.value.code == 2
    assert "--calls" in capsys.readouterr().err


def test_the_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        inference.main(["--help"])

    assert "example: hedgerow bench inference" in capsys.readouterr().out
