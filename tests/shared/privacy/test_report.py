"""The privacy report says what is claimed, and never more."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
import pytest
from dp_accounting import gaussian_mechanism

from hedgerow.shared.bundle import PrivacyReport
from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.job import CohortSpec, PrivacySpec
from hedgerow.shared.privacy.central import plan_central
from hedgerow.shared.privacy.central_report import CentralRecord
from hedgerow.shared.privacy.events import CentralRounds
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


PLAN = plan_central(
    PrivacySpec("central-poisson", delta=1e-5, noise_multiplier=1.0, clip_norm_l2=0.5),
    CohortSpec(rule="poisson", rate=0.1),
    1000,
    100,
)
CENTRAL = PrivacySpec("central-poisson", delta=1e-5, noise_multiplier=1.0, clip_norm_l2=0.5)


def central(**more: Any) -> PrivacyReport:
    return privacy_report(CENTRAL, CentralRecord(PLAN, **more))


def test_the_central_report_names_unit_relation_and_how_sampling_is_enforced() -> None:
    report = central()

    assert "one device" in report.unit
    assert "zero-out" in report.relation
    assert "coin of rate 0.1 for each of the 1000 registered devices" in report.sampling
    assert "operating system" in report.sampling and "operating system" in report.noise_source
    assert "N(0, (1 · 0.5)²) on the sum" in report.noise_source
    assert "divided by the constant 100" in report.noise_source


def test_the_central_report_has_the_figures_of_the_oracles_by_each_accountant_and_relation() -> None:
    figures = central().figures

    assert central().epsilon == figures["epsilon_pld"] == figures["epsilon_this_job"]
    assert figures["epsilon_pld"] == pytest.approx(7.047, rel=0.003)
    assert figures["epsilon_rdp"] == pytest.approx(7.904, rel=0.003)
    assert figures["epsilon_replace"] == pytest.approx(10.52, rel=0.003)
    unsampled = gaussian_mechanism.get_epsilon_gaussian(1.0 / math.sqrt(100), 1e-5)
    assert figures["epsilon_no_amplification"] == pytest.approx(unsampled, rel=0.003)
    assert [figures[name] for name in ("population", "sampling_rate", "rounds", "noise_multiplier")] == [
        1000.0,
        0.1,
        100.0,
        1.0,
    ]
    assert (figures["clip_norm_l2"], figures["delta"], central().delta) == (0.5, 1e-5, 1e-5)


def test_the_central_report_counts_earlier_jobs_over_the_same_devices_in() -> None:
    earlier = (CentralRounds(0.1, 2.0, 50),)
    plan = plan_central(CENTRAL, CohortSpec(rule="poisson", rate=0.1), 1000, 100, earlier)

    report = privacy_report(CENTRAL, CentralRecord(plan, earlier))

    assert report.epsilon == plan.epsilon > report.figures["epsilon_this_job"]
    assert report.figures["epsilon_this_job"] == pytest.approx(7.047, rel=0.003)
    assert report.figures["epsilon_rdp"] > report.figures["epsilon_pld"]


@pytest.mark.parametrize(
    "told", ["not hold against the server", "who was drawn", "frozen", "count as zero", "traffic"]
)
def test_the_central_report_says_against_whom_it_holds_and_against_whom_not(told: str) -> None:
    assert any(re.search(told, note) for note in central().notes)


def test_the_central_report_withholds_losses_counts_and_who_was_drawn() -> None:
    report = central()

    assert {"losses", "metrics", "number of updates", "who was drawn"} <= set(report.withheld)
    assert report.released == ("model of each round",)


def test_the_central_report_tells_of_jobs_that_released_something_of_these_devices_before() -> None:
    assert not any("without device-level privacy" in note for note in central().notes)
    assert any("without device-level privacy" in note for note in central(earlier_unprotected=True).notes)


def test_a_simulated_report_claims_nothing() -> None:
    report = central(simulated=True)

    assert (report.epsilon, report.delta) == (None, None)
    assert report.notes[0].startswith("Simulated, no claim")
    assert "operating system" not in report.sampling + report.noise_source
    assert report.figures["epsilon_pld"] == PLAN.epsilon


def test_a_central_report_without_an_account_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="account"):
        privacy_report(CENTRAL)


def test_reports_of_earlier_releases_are_read_as_before() -> None:
    old = msgspec.to_builtins(privacy_report(PrivacySpec("none")))
    del old["figures"]

    assert msgspec.convert(old, PrivacyReport) == privacy_report(PrivacySpec("none"))
