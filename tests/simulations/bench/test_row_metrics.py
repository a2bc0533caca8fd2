"""F1, false-alarm and missed-alarm rates, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hedgerow.simulations.bench.row_metrics import RowCounts, count_rows


def flags(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text], np.bool_)


def test_counts_and_rates_by_hand() -> None:
    counts = count_rows(flags("xx..x..."), flags("x...xx.."))

    assert counts == RowCounts(hits=2, false_alarms=1, misses=1, quiet=4)
    assert counts.rates() == {
        "f1": pytest.approx(2 / 3),
        "far_percent": pytest.approx(20.0),
        "mar_percent": pytest.approx(100 / 3),
    }


def test_files_are_pooled_by_rows_not_by_rates() -> None:
    pooled = RowCounts(1, 0, 0, 1) + RowCounts(0, 0, 9, 0)

    assert pooled.rates()["mar_percent"] == pytest.approx(90.0)


def test_no_rows_give_zero_and_not_an_error() -> None:
    assert RowCounts().rates() == {"f1": 0.0, "far_percent": 0.0, "mar_percent": 0.0}
