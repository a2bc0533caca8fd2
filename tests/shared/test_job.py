"""A job as an engineer writes it: what is read back, what each bound refuses, and by which key it says so."""

from __future__ import annotations

import math
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import (
    BUILT_MODES,
    CENTRAL_MODES,
    CohortSpec,
    DeadlineSpec,
    GateSpec,
    Job,
    Mode,
    Packing,
    PopulationSpec,
    PrivacySpec,
    StrategySpec,
    TrainingSpec,
    TrainInstruction,
    TrainReply,
)
from hedgerow.shared.tomlfile import from_table

NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,62}\Z")
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ABOVE_ZERO = st.floats(min_value=1e-300, max_value=1e300)


def table(**changes: Any) -> dict[str, Any]:
    """Return the least that a job needs, with changes; a dotted key reaches into a block (``training__momentum``)."""
    made: dict[str, Any] = {"name": "a", "recipe": "r", "privacy": {"mode": "none"}}
    for key, value in changes.items():
        *blocks, last = key.split("__")
        inner = made
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[last] = value
    return made


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


JOBS = st.builds(
    Job,
    name=NAMES,
    recipe=NAMES,
    privacy=st.builds(
        PrivacySpec,
        mode=st.sampled_from(get_args(Mode)),
        epsilon=optional(st.floats(1e-6, 100)),
        delta=optional(st.floats(1e-12, 0.09)),
        clip_norm_l2=ABOVE_ZERO,
        noise_multiplier=optional(st.floats(0.05, 1e4)),
    ),
    rounds=st.integers(1, limits.MAX_ROUNDS),
    seed=st.integers(0, 2**63 - 1),
    parameters=st.dictionaries(
        st.text(max_size=5), st.integers(-(2**62), 2**62) | FINITE | st.text(max_size=5)
    ),
    population=st.builds(
        PopulationSpec,
        groups=st.lists(NAMES, max_size=3).map(tuple),
        devices=st.lists(NAMES, max_size=3).map(tuple),
        profile=optional(st.text(max_size=9)),
    ),
    cohort=st.builds(
        CohortSpec,
        rule=st.sampled_from(["all", "fixed", "poisson"]),
        size=optional(st.integers(1, limits.MAX_DEVICES_PER_COHORT)),
        rate=optional(st.floats(1e-9, 1)),
        quorum=st.integers(1, limits.MAX_DEVICES_PER_COHORT),
    ),
    training=st.builds(
        TrainingSpec,
        local_epochs=st.integers(1, 1000),
        batch_size=st.integers(1, 65536),
        learning_rate=ABOVE_ZERO,
        optimizer=st.sampled_from(["sgd", "adam"]),
        momentum=st.floats(0, 0.999),
        proximal_mu=st.floats(0, 1e6),
        max_samples=st.integers(1, 10_000_000),
        nominal_samples=optional(st.integers(1, 10_000_000)),
    ),
    strategy=st.builds(
        StrategySpec,
        name=st.text(max_size=12),
        weighting=st.sampled_from(["uniform", "samples"]),
        server_learning_rate=ABOVE_ZERO,
        options=st.dictionaries(st.text(max_size=5), FINITE, max_size=3),
    ),
    packing=st.sampled_from(get_args(Packing)),
    deadlines=st.builds(DeadlineSpec, round_s=st.floats(1e-3, 86_400)),
    gate=st.builds(
        GateSpec,
        min_agreement=optional(st.floats(0, 1)),
        max_metric_drop=optional(st.floats(0, 1e9)),
        max_latency_us=optional(ABOVE_ZERO),
        max_artefact_bytes=optional(st.integers(1, 2**40)),
    ),
    rollout=st.sampled_from(["auto", "manual"]),
    wire=st.sampled_from(["packed", "flower"]),
)


@given(JOBS)
def test_a_job_comes_back_from_the_store_s_json_and_from_the_wire_s_msgpack(job: Job) -> None:
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(job), type=Job) == job


@given(JOBS)
def test_a_job_written_as_a_table_is_read_as_the_same_job(job: Job) -> None:
    """TOML has no null, so what is None is left out, as an engineer would."""

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(inner) for key, inner in value.items() if inner is not None}
        return value

    assert from_table(without_none(msgspec.to_builtins(job)), Job, "job.toml") == job


def test_what_is_not_written_has_its_documented_default() -> None:
    job = from_table(table(), Job, "job.toml")

    assert (job.rounds, job.seed, job.packing, job.rollout, job.wire) == (10, 0, "float32", "auto", "packed")
    assert (job.cohort.rule, job.cohort.quorum, job.cohort.size, job.cohort.rate) == ("all", 1, None, None)
    assert (job.training.optimizer, job.training.local_epochs, job.training.batch_size) == ("sgd", 1, 32)
    assert (job.strategy.name, job.strategy.weighting) == ("fedavg", "uniform")
    assert job.deadlines.round_s == 60
    assert job.gate == GateSpec(None, None, None, None)


BOUNDS = [
    ("rounds", 0, limits.MAX_ROUNDS + 1),
    ("seed", -1, 2**63),
    ("privacy__epsilon", 0.0, 100.5),
    ("privacy__delta", 0.0, 0.1),
    ("privacy__noise_multiplier", 0.049, 1e4 + 1),
    ("cohort__size", 0, limits.MAX_DEVICES_PER_COHORT + 1),
    ("cohort__rate", 0.0, 1.0001),
    ("cohort__quorum", 0, limits.MAX_DEVICES_PER_COHORT + 1),
    ("training__local_epochs", 0, 1001),
    ("training__batch_size", 0, 65537),
    ("training__momentum", -0.1, 1.0),
    ("training__max_samples", 0, 10_000_001),
    ("training__nominal_samples", 0, 10_000_001),
    ("deadlines__round_s", 0.0, 86_401.0),
    ("gate__min_agreement", -0.1, 1.1),
]
LOWER_ONLY = [
    ("privacy__clip_norm_l2", 0.0),
    ("training__learning_rate", 0.0),
    ("training__proximal_mu", -1e-9),
    ("strategy__server_learning_rate", 0.0),
    ("gate__max_metric_drop", -1e-9),
    ("gate__max_latency_us", 0.0),
    ("gate__max_artefact_bytes", 0),
]
REFUSED = [(key, value) for key, *values in BOUNDS for value in values] + LOWER_ONLY


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_number_out_of_bounds_is_refused_by_its_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        from_table(table(**{key: value}), Job, "job.toml")

    assert str(caught.value).startswith("job.toml: Expected")
    assert f"`$.{key.replace('__', '.')}`" in str(caught.value)


@pytest.mark.parametrize("key", [key for key, *_ in BOUNDS] + [key for key, _ in LOWER_ONLY])
def test_not_a_number_is_within_no_bound(key: str) -> None:
    with pytest.raises(ConfigError, match=key.replace("__", r"\.")):
        from_table(table(**{key: math.nan}), Job, "job.toml")


@pytest.mark.parametrize("key", [key for key, *_ in BOUNDS] + [key for key, _ in LOWER_ONLY])
@pytest.mark.parametrize("value", ["1", True, [1], {"a": 1}], ids=["text", "true", "list", "table"])
def test_a_value_of_another_type_is_refused_and_never_converted(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.replace("__", r"\.")):
        from_table(table(**{key: value}), Job, "job.toml")


CHOICES = [
    "privacy__mode",
    "cohort__rule",
    "training__optimizer",
    "strategy__weighting",
    "packing",
    "rollout",
    "wire",
]


@pytest.mark.parametrize("key", CHOICES)
@pytest.mark.parametrize("value", ["", "NONE", "none ", "all\n", "\u200bnone"])
def test_a_word_outside_its_choices_is_refused_by_its_key(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"Invalid enum value.*{key.replace('__', '[.]')}"):
        from_table(table(**{key: value}), Job, "job.toml")


WRONG_NAMES = [
    "",
    "A",
    "-a",
    "a" * 64,
    "a b",
    "a/b",
    "../a",
    "a.b",
    "a\n",
    "\na",
    "a\x00",
    "ä",
    "а",  # Cyrillic, which looks like the Latin letter
    "１",  # a digit of full width
]


@pytest.mark.parametrize("name", WRONG_NAMES)
@pytest.mark.parametrize("key", ["name", "recipe"])
def test_a_name_that_could_be_read_in_two_ways_is_refused(key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"regex.*\$\.{key}`"):
        from_table(table(**{key: name}), Job, "job.toml")


@pytest.mark.parametrize("name", WRONG_NAMES)
@pytest.mark.parametrize("key", ["groups", "devices"])
def test_the_population_filter_takes_names_only(key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"\$\.population\.{key}\[1\]"):
        from_table(table(**{f"population__{key}": ["good", name]}), Job, "job.toml")


def test_privacy_is_never_a_default() -> None:
    given_table = table()
    del given_table["privacy"]

    with pytest.raises(ConfigError, match="missing required field `privacy`"):
        from_table(given_table, Job, "job.toml")
    with pytest.raises(ConfigError, match="missing required field `mode`"):
        from_table(table() | {"privacy": {}}, Job, "job.toml")


def test_the_modes_that_are_built_exist_and_central_ones_are_named_so() -> None:
    assert set(get_args(Mode)) >= BUILT_MODES
    assert {mode for mode in get_args(Mode) if mode.startswith("central-")} == CENTRAL_MODES


def test_defaults_of_privacy_are_not_sent_so_that_an_older_device_reads_the_job() -> None:
    sent = msgspec.json.decode(msgspec.json.encode(PrivacySpec("example", 8.0, 1e-5)))

    assert sent == {"mode": "example", "epsilon": 8.0, "delta": 1e-5}


@given(st.binary(max_size=64), st.integers(1, 10_000), FINITE)
def test_an_instruction_and_a_reply_come_back_byte_for_byte(model: bytes, round: int, value: float) -> None:
    instruction = TrainInstruction(
        "j", round, 0, "r", "h", {"n": value}, PrivacySpec("none"), TrainingSpec(), "int8", 9, 3, "0" * 64, 1.5, model
    )  # fmt: skip
    reply = TrainReply("j", round, 0, 3, "int8", len(model), "0" * 64, metrics={"loss": value})

    read = msgspec.msgpack.decode(msgspec.msgpack.encode(instruction), type=TrainInstruction | TrainReply)
    assert read == instruction
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reply), type=TrainInstruction | TrainReply) == reply


def test_an_instruction_is_never_taken_for_a_reply() -> None:
    reply = msgspec.msgpack.encode(TrainReply("j", 1, 0, 3, "int8", 0, ""))

    with pytest.raises(msgspec.ValidationError, match="train"):
        msgspec.msgpack.decode(reply, type=TrainInstruction)
