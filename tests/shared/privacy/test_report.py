"""The privacy report says what is claimed, and never more."""

from __future__ import annotations

import pytest

from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.job import PrivacySpec
from hedgerow.shared.privacy.report import privacy_report


def test_the_example_report_names_unit_relation_sampling_and_bounds() -> None:
    report = privacy_report(PrivacySpec("example", 8.0, 1e-5, 0.7))

    assert (report.mode, report.epsilon, report.delta) == ("example", 8.0, 1e-5)
    assert "one device" in report.unit
    assert report.relation == "add or remove one example"
    assert "Poisson" in report.sampling and "on the device" in report.sampling
    assert "0.7" in report.noise_source
    assert "PLD" in report.accountant


def test_the_example_report_says_that_losses_and_counts_are_withheld() -> None:
    report = privacy_report(PrivacySpec("example", 8.0, 1e-5))

    assert {"losses", "metrics", "number of examples"} <= set(report.withheld)
    assert report.released == ("model update of each round",)


def test_the_example_report_says_what_the_epsilon_of_a_round_follows_from() -> None:
    report = privacy_report(PrivacySpec("example", 8.0, 1e-5))

    assert any("has spent by then" in note and "rounded number of examples" in note for note in report.notes)
    assert "ε really spent" not in report.withheld


def test_the_population_statement_is_a_maximum_and_no_sum() -> None:
    report = privacy_report(PrivacySpec("example", 8.0, 1e-5))

    assert any("maximum over devices, never a sum" in note for note in report.notes)


@pytest.mark.parametrize("told", ["Alarms", "time", "declines", "floating point", "power of √2"])
def test_the_example_report_tells_what_lies_outside_of_epsilon(told: str) -> None:
    assert any(told in note for note in privacy_report(PrivacySpec("example", 8.0, 1e-5)).notes)


def test_no_privacy_is_said_loudly() -> None:
    report = privacy_report(PrivacySpec("none"))

    assert report.epsilon is None
    assert any("infinite" in note for note in report.notes)
    assert "losses" in report.released


def test_a_mode_that_is_not_built_has_no_report() -> None:
    with pytest.raises(UnsupportedError, match="distributed"):
        privacy_report(PrivacySpec("distributed", 8.0, 1e-5))


@pytest.mark.parametrize("missing", [PrivacySpec("example", None, 1e-5), PrivacySpec("example", 8.0, None)])
def test_an_example_report_without_a_budget_cannot_be_made(missing: PrivacySpec) -> None:
    with pytest.raises(ValueError, match="epsilon and delta"):
        privacy_report(missing)
