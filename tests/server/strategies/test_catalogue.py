"""Which strategies a job may name, and what a refusal says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from hedgerow.server.aggregation.central import CentralAggregator
from hedgerow.server.aggregation.streaming import StreamingAggregator
from hedgerow.server.strategies.catalogue import FLOWER, OWN, check_strategy, make_aggregator
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import CohortSpec, Job, PrivacySpec, StrategySpec, TrainingSpec
from hedgerow.shared.privacy.central import CentralPlan

NONE = PrivacySpec("none")
EXAMPLE = PrivacySpec("example", epsilon=8.0, delta=1e-5)
CENTRAL = PrivacySpec("central-poisson", epsilon=2.0, delta=1e-5)
PLAN = CentralPlan(0.1, 100, 1.0, 0.5, 10, 1e-5, 1.0)


def job(name: str, privacy: PrivacySpec = NONE, *, quorum: int = 1, mu: float = 0.0, **strategy: Any) -> Job:
    return Job(
        name="t",
        recipe="r",
        privacy=privacy,
        cohort=CohortSpec(quorum=quorum),
        training=TrainingSpec(proximal_mu=mu),
        strategy=StrategySpec(name=name, **strategy),
    )


@pytest.mark.parametrize(
    "good",
    [
        job("fedavg"),
        job("fedavg", EXAMPLE, server_learning_rate=0.5),
        job("fedavg", options={"max_update_norm_l2": 3.0}),
        job("fedprox", mu=0.1),
        job("fedprox", EXAMPLE, mu=0.1),
        job("fedavgm", EXAMPLE, options={"server_momentum": 0.5, "max_update_norm_l2": 2.0}),
        job("fedadam", CENTRAL, mu=0.1, options={"beta_1": 0.5, "beta_2": 0.9, "tau": 0.1}),
        job("fedyogi", CENTRAL, server_learning_rate=0.1),
        job("flower:FedAdam", options={"eta": 0.01, "beta_1": 0.5}),
        job("flower:FedAdam", weighting="samples"),
        job("flower:Krum", quorum=5, options={"num_malicious_nodes": 1}),
        job("flower:Bulyan", quorum=7, options={"num_malicious_nodes": 1}),
        job("flower:QFedAvg", options={"client_learning_rate": 0.1}),
    ],
    ids=lambda j: f"{j.strategy.name}-{j.privacy.mode}",
)
def test_sound_combinations_pass(good: Job) -> None:
    check_strategy(good, "job.toml")


BAD: dict[str, tuple[Job, str]] = {
    "unknown": (
        job("fedbanana"),
        "strategy.name: expected fedavg, fedprox, fedavgm, fedadam, fedyogi or flower",
    ),
    "import path": (job("flower:os.path.join"), "strategy.name: expected flower:NAME with NAME of Bulyan"),
    "not allowed": (job("flower:FedXgbBagging"), "strategy.name: expected flower:NAME"),
    "mu without fedprox": (job("fedavg", mu=0.1), "training.proximal_mu: expected 0"),
    "fedprox without mu": (job("fedprox"), "training.proximal_mu: expected a number above 0"),
    "unknown option": (job("flower:FedAdam", options={"gamma": 1.0}), "strategy.options.gamma: unknown"),
    "fraction": (job("flower:FedAdam", options={"fraction_train": 1.0}), "fraction_train: unknown"),
    "range": (
        job("flower:FedTrimmedAvg", options={"beta": 0.5}),
        "options.beta: expected a number from 0 to",
    ),
    "nan": (job("flower:FedAdam", options={"eta": float("nan")}), "options.eta: expected a number"),
    "whole": (
        job("flower:Krum", quorum=9, options={"num_malicious_nodes": 1.5}),
        "num_malicious_nodes: expected a whole number",
    ),
    "rate": (job("flower:FedAdam", server_learning_rate=0.5), "strategy.server_learning_rate"),
    "weights": (job("flower:FedMedian", weighting="samples"), "strategy.weighting: expected 'uniform'"),
    "krum quorum": (
        job("flower:Krum", quorum=4, options={"num_malicious_nodes": 1}),
        "cohort.quorum: expected at least 5",
    ),
    "bulyan quorum": (
        job("flower:Bulyan", quorum=6, options={"num_malicious_nodes": 1}),
        "cohort.quorum: expected at least 7",
    ),
    "option of another": (job("fedavg", options={"beta_1": 0.5}), "options.beta_1: unknown for 'fedavg'"),
    "momentum of one": (
        job("fedavgm", options={"server_momentum": 1.0}),
        "server_momentum: expected a number from 0",
    ),
    "tau of zero": (job("fedyogi", options={"tau": 0.0}), "options.tau: expected a number from 1e-12"),
    "two bounds": (
        job("fedavg", CENTRAL, options={"max_update_norm_l2": 1.0}),
        "options.max_update_norm_l2: unknown for 'fedavg'; options are none",
    ),
    "qfedavg rate": (job("flower:QFedAvg"), "strategy.options.client_learning_rate: expected a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_refusal_names_file_key_and_what_is_expected(case: str) -> None:
    bad, said = BAD[case]
    with pytest.raises(ConfigError) as refused:
        check_strategy(bad, "job.toml")
    assert str(refused.value).startswith("job.toml: ")
    assert said in str(refused.value)


@pytest.mark.parametrize("name", sorted(FLOWER))
def test_no_flower_strategy_runs_with_privacy_and_the_reason_is_given(name: str) -> None:
    with pytest.raises(ConfigError, match="no accounting of ours covers it"):
        check_strategy(job(f"flower:{name}", EXAMPLE, quorum=99), "job.toml")


@pytest.mark.parametrize("name", OWN)
def test_every_strategy_of_our_own_runs_with_central_privacy_and_never_without_its_plan(name: str) -> None:
    asked = job(name, CENTRAL)

    assert isinstance(make_aggregator(asked, 3, PLAN), CentralAggregator)
    with pytest.raises(ValueError, match="plan"):
        make_aggregator(asked, 3)


@pytest.mark.parametrize("privacy", [NONE, EXAMPLE], ids=["none", "example"])
def test_a_plan_of_the_central_mode_goes_with_no_other(privacy: PrivacySpec) -> None:
    with pytest.raises(ValueError, match="plan"):
        make_aggregator(job("fedavg", privacy), 3, PLAN)


def test_our_own_strategies_hold_no_updates_and_flowers_say_that_they_do() -> None:
    assert isinstance(make_aggregator(job("fedprox", mu=0.1), 3), StreamingAggregator)
    assert not make_aggregator(job("fedavg"), 3).holds_updates
    assert make_aggregator(job("flower:FedMedian"), 3).holds_updates


def test_a_job_with_a_strategy_of_ours_never_loads_flower() -> None:
    code = (
        "import sys; import hedgerow.server.jobs.service; "
        "from hedgerow.server.strategies.catalogue import make_aggregator; "
        "from hedgerow.shared.job import Job, PrivacySpec; "
        "make_aggregator(Job(name='a', recipe='r', privacy=PrivacySpec('none')), 3); "
        "print(sorted({'flwr', 'torch', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
