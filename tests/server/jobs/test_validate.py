"""What a submitted job is refused for, and what the refusal says."""

from __future__ import annotations

import pytest

from hedgerow.server.jobs.validate import check_fleet, check_job
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import BUILT_MODES, Job
from hedgerow.shared.tomlfile import parse_toml

HEAD = 'name = "t"\nrecipe = "r"\n'
NONE = '[privacy]\nmode = "none"\n'
EXAMPLE = '[privacy]\nmode = "example"\nepsilon = 8.0\ndelta = 1e-5\n'
CENTRAL = '[privacy]\nmode = "central-poisson"\nepsilon = 2.0\ndelta = 1e-3\n'
POISSON = '[cohort]\nrule = "poisson"\nrate = 0.1\n'
HASH = "a" * 64


def parse(text: str) -> Job:
    return parse_toml(text.encode(), Job, "job.toml")


@pytest.mark.parametrize(
    "text",
    [
        HEAD + NONE,
        HEAD + EXAMPLE,
        HEAD + 'wire = "flower"\n' + NONE,
        HEAD + 'packing = "int8"\n' + EXAMPLE,
        HEAD + NONE + '[strategy]\nweighting = "samples"\n',
        HEAD + EXAMPLE + '[cohort]\nrule = "fixed"\nsize = 3\nquorum = 3\n',
        HEAD + CENTRAL + POISSON,
        HEAD + CENTRAL + POISSON + "quorum = 5\n",
        HEAD + CENTRAL.replace("epsilon = 2.0", "noise_multiplier = 1.1") + POISSON,
        HEAD + 'packing = "int8"\n' + CENTRAL + POISSON,
        HEAD + CENTRAL + POISSON + '[strategy]\nname = "fedyogi"\noptions = { tau = 0.01 }\n',
        HEAD + CENTRAL + POISSON + '[strategy]\nname = "fedprox"\n[training]\nproximal_mu = 0.1\n',
    ],
)
def test_sound_jobs_pass(text: str) -> None:
    check_job(parse(text), "job.toml")


BAD = {
    HEAD + EXAMPLE.replace("epsilon = 8.0\n", ""): "privacy.epsilon: expected a number",
    HEAD + EXAMPLE.replace("delta = 1e-5\n", ""): "privacy.delta: expected a number",
    HEAD + NONE + "epsilon = 1.0\n": "privacy.epsilon: mode 'none' gives no guarantee",
    HEAD + NONE + "delta = 0.01\n": "privacy.delta: mode 'none' gives no guarantee",
    HEAD + EXAMPLE + '[strategy]\nweighting = "samples"\n': "strategy.weighting: 'samples' would publish",
    HEAD + EXAMPLE + '[strategy]\nname = "flower:Krum"\n': "strategy.name: 'flower:Krum'",
    HEAD + 'wire = "flower"\n' + EXAMPLE: "wire: 'flower' speaks to stock client apps",
    HEAD + 'wire = "flower"\npacking = "int8"\n' + NONE: "packing: expected 'float32'",
    HEAD + NONE + '[cohort]\nrule = "fixed"\n': "cohort.size: expected a number",
    HEAD + NONE + "[cohort]\nsize = 3\n": "cohort.size: rule 'all' draws everybody",
    HEAD
    + NONE
    + '[cohort]\nrule = "fixed"\nsize = 3\nquorum = 4\n': "cohort.quorum: expected at most cohort.size",
    HEAD + NONE + "noise_multiplier = 1.0\n": "privacy.noise_multiplier: mode 'none' gives no guarantee",
    HEAD
    + EXAMPLE
    + "noise_multiplier = 1.0\n": "privacy.noise_multiplier: in mode 'example' each device finds",
    HEAD
    + CENTRAL
    + "noise_multiplier = 1.0\n"
    + POISSON: "privacy.epsilon: mode 'central-poisson' needs either",
    HEAD
    + CENTRAL.replace("epsilon = 2.0\n", "")
    + POISSON: "privacy.epsilon: mode 'central-poisson' needs either",
    HEAD + CENTRAL.replace("delta = 1e-3\n", "") + POISSON: "privacy.delta: expected a number",
    HEAD + CENTRAL: "cohort.rule: expected 'poisson' with cohort.rate",
    HEAD
    + CENTRAL
    + '[cohort]\nrule = "fixed"\nsize = 3\n': "cohort.rule: expected 'poisson' with cohort.rate",
    HEAD + CENTRAL + '[cohort]\nrule = "poisson"\n': "cohort.rule: expected 'poisson' with cohort.rate",
    HEAD + CENTRAL + POISSON + "size = 3\n": "cohort.size: rule 'poisson' draws by cohort.rate",
    HEAD + NONE + POISSON: "cohort.rule: 'poisson' may draw nobody",
    HEAD + EXAMPLE + POISSON: "cohort.rule: 'poisson' may draw nobody",
    HEAD + NONE + "[cohort]\nrate = 0.5\n": "cohort.rate: is for rule 'poisson'",
    HEAD
    + CENTRAL
    + POISSON
    + '[strategy]\nweighting = "samples"\n': "strategy.weighting: 'samples' would publish",
    HEAD + CENTRAL + POISSON + '[strategy]\nname = "flower:FedAdam"\n': "strategy.name: 'flower:FedAdam'",
    HEAD
    + CENTRAL
    + POISSON
    + "[strategy]\noptions = { max_update_norm_l2 = 3.0 }\n": "options.max_update_norm_l2: unknown for 'fedavg'",
    HEAD + 'wire = "flower"\n' + CENTRAL + POISSON: "wire: 'flower' speaks to stock client apps",
}


@pytest.mark.parametrize("rate", ["0.0", "-0.1", "1.5", "nan"])
def test_a_rate_is_a_probability_above_zero(rate: str) -> None:
    with pytest.raises(ConfigError, match="rate"):
        parse(HEAD + CENTRAL + POISSON.replace("0.1", rate))


@pytest.mark.parametrize("noise", ["0.0", "-1.0", "0.01", "20000.0"])
def test_noise_outside_its_range_is_refused(noise: str) -> None:
    with pytest.raises(ConfigError, match="noise_multiplier"):
        parse(HEAD + CENTRAL.replace("epsilon = 2.0", f"noise_multiplier = {noise}") + POISSON)


def test_delta_of_a_central_job_is_at_most_a_tenth_of_a_device() -> None:
    text = HEAD + CENTRAL.replace("1e-3", "0.004") + POISSON

    fleet(text, "a" * 1)
    fleet(text, "abcdefghijklmnopqrstuvwxy")
    with pytest.raises(ConfigError, match=r"privacy.delta: expected at most 1 / \(10 · 26 registered"):
        fleet(text, "abcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize("text", BAD, ids=list(BAD.values()))
def test_a_contradiction_is_refused_with_file_key_and_expectation(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_job(parse(text), "job.toml")
    assert str(refused.value).startswith("job.toml: ")
    assert BAD[text] in str(refused.value)


@pytest.mark.parametrize("mode", ["central-bandmf", "distributed", "local"])
def test_modes_that_are_not_built_are_refused_as_such(mode: str) -> None:
    assert mode not in BUILT_MODES
    with pytest.raises(
        ConfigError,
        match=f"privacy.mode: '{mode}' is not built yet; expected one of central-poisson, example, ",
    ):
        check_job(parse(HEAD + EXAMPLE.replace("example", mode)), "job.toml")


def test_the_privacy_block_cannot_be_left_out() -> None:
    with pytest.raises(ConfigError, match="privacy"):
        parse(HEAD)


def fleet(text: str = HEAD + NONE, devices: str = "abc", **reported: str | None) -> None:
    check_fleet(parse(text), "job.toml", HASH, list(devices), reported)


def test_devices_with_the_same_recipe_and_those_that_never_reported_pass() -> None:
    fleet(a=HASH, b=HASH)


def test_nobody_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="population: no registered device matches"):
        fleet(devices="")


def test_devices_with_another_or_no_version_are_named() -> None:
    with pytest.raises(ConfigError) as refused:
        fleet(a="b" * 64, b=None, c=HASH)
    assert "1 lack it (b) and 1 have another version (a)" in str(refused.value)
    assert HASH[:12] in str(refused.value)


def test_many_mismatches_are_named_in_part() -> None:
    devices = {f"d{i}": None for i in range(9)}
    with pytest.raises(ConfigError, match=r"9 lack it \(d0, d1, d2, d3, d4, …\)"):
        check_fleet(parse(HEAD + NONE), "job.toml", HASH, list(devices), devices)


@pytest.mark.parametrize(
    ("cohort", "key"), [('rule = "fixed"\nsize = 4', "cohort.size"), ("quorum = 4", "cohort.quorum")]
)
def test_more_than_the_fleet_has_is_refused(cohort: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: expected at most the 3 registered devices, got 4"):
        fleet(HEAD + NONE + f"[cohort]\n{cohort}\n")
