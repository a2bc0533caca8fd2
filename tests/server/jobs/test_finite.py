"""TOML knows infinity, the store's JSON does not: a job with one is refused before it can poison the list of jobs."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.jobs.store import JobStore
from hedgerow.server.jobs.validate import check_fleet, check_job
from hedgerow.server.jobs.written import parse_job
from hedgerow.server.store.database import Base, Database
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import CohortSpec, Job, PrivacySpec

HEAD = 'name = "t"\nrecipe = "r"\n'
NONE = '[privacy]\nmode = "none"\n'
INFINITE = [
    (HEAD + NONE + "clip_norm_l2 = inf\n", "privacy.clip_norm_l2"),
    (HEAD + NONE + "[training]\nlearning_rate = inf\n", "training.learning_rate"),
    (HEAD + NONE + "[training]\nproximal_mu = inf\n", "training.proximal_mu"),
    (HEAD + NONE + "[strategy]\nserver_learning_rate = inf\n", "strategy.server_learning_rate"),
    (HEAD + NONE + "[strategy]\noptions = { tau = nan }\n", "strategy.options.tau"),
    (HEAD + NONE + "[gate]\nmax_metric_drop = inf\n", "gate.max_metric_drop"),
    (HEAD + NONE + "[gate]\nmax_latency_us = inf\n", "gate.max_latency_us"),
    (HEAD + NONE + "[parameters]\nrate = -inf\n", "parameters.rate"),
    (HEAD + NONE + "[parameters]\ndeep = { list = [1.0, [nan]] }\n", "parameters.deep.list[1][0]"),
]


@pytest.mark.parametrize(("text", "key"), INFINITE, ids=[key for _, key in INFINITE])
def test_a_number_without_end_is_refused_by_its_key(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_job(parse_job(text.encode(), "job.toml"), "job.toml")

    assert str(caught.value) == f"job.toml: {key}: expected a finite number"


VALUES = st.recursive(
    st.floats() | st.integers(-(2**53), 2**53) | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_parameters_that_pass_are_read_back_from_the_store_s_json_as_they_were(
    parameters: dict[str, object],
) -> None:
    job = Job("t", "r", PrivacySpec("none"), parameters=parameters)
    try:
        check_job(job, "job.toml")
    except ConfigError as error:
        assert "expected a finite number" in str(error)  # the other way is the point
        assert "null" in msgspec.json.encode(parameters).decode()
    else:
        assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job


def test_what_such_a_job_would_do_to_the_list_of_jobs(tmp_path: Path) -> None:
    """Why it must be refused: stored, it could not be read, nor could any other job beside it."""
    database = Database(f"sqlite:///{tmp_path / 'h.db'}")
    Base.metadata.create_all(database.engine)
    store = JobStore(database)
    store.add("good", Job("good", "r", PrivacySpec("none")), "h", 1, "")
    store.add("bad", Job("bad", "r", PrivacySpec("none", clip_norm_l2=math.inf)), "h", 1, "")

    with pytest.raises(msgspec.ValidationError, match="clip_norm_l2"):
        store.recent(10)
    database.close()


def fleet_problem(job: Job, n_devices: int, reported: dict[str, str | None] | None = None) -> str:
    devices = [f"d{n}" for n in range(n_devices)]
    try:
        check_fleet(job, "job.toml", "a" * 64, devices, reported or {})
    except ConfigError as error:
        return str(error)
    return ""


@given(st.integers(0, 30), st.integers(1, 30), st.integers(1, 30), st.sampled_from(["all", "fixed"]))
def test_a_job_asks_for_no_more_devices_than_there_are(
    devices: int, size: int, quorum: int, rule: str
) -> None:
    fixed = rule == "fixed"
    cohort = CohortSpec("fixed" if fixed else "all", size if fixed else None, quorum=quorum)
    problem = fleet_problem(Job("t", "r", PrivacySpec("none"), cohort=cohort), devices)

    if devices == 0:
        assert "population: no registered device matches" in problem
    elif fixed and size > devices:
        assert f"cohort.size: expected at most the {devices} registered devices, got {size}" in problem
    elif quorum > devices:
        assert f"cohort.quorum: expected at most the {devices} registered devices, got {quorum}" in problem
    else:
        assert problem == ""


@given(st.integers(1, 10_000), st.floats(1e-9, 0.09))
def test_delta_of_a_central_job_is_at_most_a_tenth_of_one_in_its_devices(devices: int, delta: float) -> None:
    job = Job("t", "r", PrivacySpec("central-poisson", 2.0, delta), cohort=CohortSpec("poisson", rate=0.1))
    problem = fleet_problem(job, devices)

    assert (problem == "") is (delta * 10 * devices <= 1)
    assert not problem or problem.startswith(f"job.toml: privacy.delta: expected at most 1 / (10 · {devices}")


def test_delta_of_a_job_whose_ledger_is_on_the_device_is_not_the_fleet_s_to_judge() -> None:
    assert fleet_problem(Job("t", "r", PrivacySpec("example", 8.0, 0.05)), 1000) == ""


@given(
    st.dictionaries(st.sampled_from([f"d{n}" for n in range(9)]), st.sampled_from([None, "a" * 64, "b" * 64]))
)
def test_devices_that_lack_the_recipe_or_have_another_are_named_five_at_most(
    reported: dict[str, str | None],
) -> None:
    problem = fleet_problem(Job("t", "r", PrivacySpec("none")), 9, reported)
    lacking = sorted(d for d, digest in reported.items() if digest is None)
    differing = sorted(d for d, digest in reported.items() if digest == "b" * 64)

    assert (problem == "") is (not lacking and not differing)
    for names, what in ((lacking, "lack it"), (differing, "have another version")):
        assert (f"{len(names)} {what} (" in problem) is bool(names)
        assert not names or ", ".join(names[:5]) + (", …" if len(names) > 5 else "") in problem
