"""What a scenario may not ask for: each refusal names the file, the field, and what is expected."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.simulation_scenarios import scenario, table

from hedgerow.shared.errors import ConfigError
from hedgerow.shared.tomlfile import from_table
from hedgerow.simulations.scenario.check import check_scenario
from hedgerow.simulations.scenario.spec import Scenario

ANOMALY: dict[str, Any] = {"job__recipe": "anomaly-autoencoder", "population__source": "pump"}
CENTRAL: dict[str, Any] = {
    "job__privacy": {"mode": "central-poisson", "epsilon": 4.0, "delta": 1e-5},
    "job__cohort": {"rule": "poisson", "rate": 0.5},
}


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        scenario(**changes)
    text = str(caught.value)
    assert text.startswith("s.toml"), text
    return text


def test_a_plain_scenario_is_accepted() -> None:
    assert scenario().population.devices == 10
    assert scenario(**ANOMALY, population__partition={"kind": "natural"}).job.recipe == "anomaly-autoencoder"
    assert scenario(**CENTRAL).job.cohort.rate == 0.5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"job__recipe": "nothing"}, "job.recipe"),
        ({"job__parameters": {"filtres": 3}}, "job.parameters: .*filtres"),
        ({"job__cohort": {"rule": "fixed", "size": 11}}, r"job.cohort.size: .*population.devices \(10\)"),
        ({"job__cohort": {"quorum": 11}}, "job.cohort.quorum"),
        ({"job__privacy": {"mode": "example"}}, "job.privacy.epsilon"),
        ({"job__privacy": {"mode": "none", "epsilon": 1.0}}, "job.privacy.epsilon"),
        ({"job__privacy": {"mode": "distributed", "epsilon": 1.0, "delta": 1e-5}}, "job.privacy.mode"),
        ({**CENTRAL, "job__strategy": {"weighting": "samples"}}, "job.strategy.weighting"),
        ({**CENTRAL, "job__cohort": {"rule": "fixed", "size": 3}}, "job.cohort.rule"),
        ({"job__strategy": {"name": "fedavgg"}}, "job.strategy.name"),
        ({"job__strategy": {"name": "fedprox"}}, "job.training.proximal_mu"),
        ({"job__strategy": {"name": "fedavg", "options": {"beta": 1.0}}}, "job.strategy.options.beta"),
        ({"population__path": "data"}, "population.path"),
        ({"population__source": "csv", "population__options": {"label": "y"}}, "population.path"),
        ({"population__options": {"sample": 3}}, "population.options: .*sample.*digits"),
        ({"population__source": "pump"}, "population.source: .*classes"),
        ({"population__partition": {"kind": "natural"}}, "population.partition.kind"),
        ({"population__partition": {"kind": "group"}}, "population.partition.kind"),
        ({**ANOMALY, "population__partition": {"kind": "dirichlet"}}, "population.partition.kind"),
        ({"population__partition": {"kind": "label", "labels_per_device": 11}}, "labels_per_device"),
        ({"population__partition": {"min_examples": 9, "max_examples": 8}}, "partition.max_examples"),
        ({"device_class": []}, "device_class"),
        ({"device_class": [{"name": "a"}, {"name": "a"}]}, r"device_class\[0\].name"),
        ({"device_class": [{"name": "a", "memory_mib": 0.1}]}, r"device_class\[0\].memory_mib"),
        ({"availability": {"kind": "diurnal", "rate": 0.2, "low": 0.3}}, "availability.low"),
        ({"availability": {"kind": "random", "rate": 0.0}}, "availability.rate"),
        ({"faults": {"kill": 0.1}}, "faults.kill: .*'fleet'"),
        ({"faults": {"clock_skew_s": -3.0}}, "faults.clock_skew_s"),
        ({**ANOMALY, "faults": {"byzantine": {"kind": "label-flip"}}}, "faults.byzantine.kind"),
        ({"faults": {"byzantine": {"kind": "nan", "from_round": 11}}}, "faults.byzantine.from_round"),
        ({"evaluation": {"per_device": True}}, "evaluation.per_device: .*population.test_share"),
        ({"evaluation": {"cohorts": "group"}}, "evaluation.cohorts"),
        ({"population__drift": {"from_round": 11, "shift": 1.0}}, "population.drift.from_round"),
        ({"population__drift": {"from_round": 8, "over_rounds": 4, "shift": 1.0}}, "drift.over_rounds"),
        ({"population__drift": {"from_round": 3}}, "population.drift.shift"),
        ({"population__drift": {"shift": 1.0}}, "population.drift.from_round"),
        ({**ANOMALY, "population__drift": {"from_round": 2, "rotate_labels": True}}, "rotate_labels"),
    ],
)
def test_what_contradicts_itself_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    assert re.search(rf"^s\.toml: (.*\.)?{field}", refusal(**changes)), refusal(**changes)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"popluation": 3}, "popluation"),
        ({"population__partition": {"kynd": "iid"}}, "population.partition.kynd"),
        ({"device_class": [{"name": "a", "speed": 3}]}, "device_class[0].speed"),
        ({"faults": {"byzantine": {"kind": "nan", "many": 2}}}, "faults.byzantine.many"),
        ({"population__devices": 0}, "population.devices"),
        ({"population__source": "mnist"}, "population.source"),
        ({"seed": -1}, "seed"),
    ],
)
def test_unknown_keys_and_values_out_of_range_are_named(changes: dict[str, Any], key: str) -> None:
    assert key in refusal(**changes)


def test_synthetic_samples_must_suffice_for_the_least_each() -> None:
    text = refusal(
        job__recipe="mlp",
        population__source="synthetic-vectors",
        population__options={"samples": 50},
        population__partition={"min_examples": 6},
    )

    assert "population.options.samples: 50" in text
    assert "60 or more" in text


@pytest.mark.parametrize(
    ("strategy", "changes", "field"),
    [
        ({"name": "scaffold", "options": {"rate": 1.0}}, {}, "job.strategy.options.rate"),
        ({"name": "scaffold"}, {"job__training": {"optimizer": "adam"}}, "job.training.optimizer"),
        ({"name": "scaffold"}, {"job__training": {"momentum": 0.9}}, "job.training.optimizer"),
        ({"name": "scaffold"}, {"engine": "fleet"}, "job.strategy.name: .*fleet"),
        ({"name": "scaffold"}, CENTRAL, "job.strategy.name"),
        ({"name": "fedbuff"}, CENTRAL, "job.strategy.name"),
        ({"name": "fedbuff", "options": {"buffer_size": 2.5}}, {}, "options.buffer_size: .*whole"),
        ({"name": "fedbuff", "options": {"buffer_size": 0}}, {}, "options.buffer_size"),
        (
            {"name": "fedbuff", "options": {"concurrency": 11}},
            {},
            "options.concurrency: .*population.devices",
        ),
        ({"name": "fedper", "options": {"personal_tensors": 0}}, {}, "options.personal_tensors"),
        ({"name": "fedper", "options": {"personal_tensors": float("nan")}}, {}, "options.personal_tensors"),
    ],
)
def test_strategies_that_only_a_simulation_has_are_checked_too(
    strategy: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    assert re.search(rf"{field}", refusal(job__strategy=strategy, **changes))


def test_what_such_a_strategy_may_have_is_accepted() -> None:
    example = {"mode": "example", "epsilon": 4.0, "delta": 1e-4}

    assert scenario(job__strategy={"name": "scaffold", "weighting": "samples"})
    assert scenario(
        job__strategy={"name": "fedper", "options": {"personal_tensors": 2}}, job__privacy=example
    )
    assert scenario(
        job__strategy={
            "name": "fedbuff",
            "options": {"buffer_size": 3, "concurrency": 10, "staleness_exponent": 0.5},
        }
    )


def test_a_job_is_refused_with_the_key_it_has_in_the_scenario() -> None:
    assert "s.toml: job.privacy.epsilon" in refusal(job__privacy={"mode": "example"})


def test_faults_of_processes_are_accepted_where_processes_are() -> None:
    assert scenario(engine="fleet", faults={"kill": 0.1, "loss": 0.05, "delay_ms": 20.0}).faults.kill == 0.1


def test_one_class_that_can_hold_the_model_is_enough() -> None:
    classes = [{"name": "tiny", "memory_mib": 0.01}, {"name": "large"}]

    assert len(scenario(device_class=classes).device_class) == 2


def test_the_check_reads_no_data() -> None:
    made = from_table(
        table(population__source="npz", population__path="nowhere.npz", job__recipe="mlp"), Scenario, "s.toml"
    )

    check_scenario(made, "s.toml")
