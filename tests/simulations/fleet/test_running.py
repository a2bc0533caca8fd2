"""What a fleet's devices are given: a profile that every agent reads, and jobs as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.server.jobs.written import parse_job
from hedgerow.shared.profile import read_profile
from hedgerow.shared.specs import TensorSpec
from hedgerow.simulations.configs import configs_folder
from hedgerow.simulations.fleet.running import device_name, profile_text
from hedgerow.simulations.run.toml_text import changed, toml_of
from hedgerow.simulations.testing import training_job

IMAGE = TensorSpec("digit", "uint8", (8, 8, 1), "image")


def test_without_a_profile_a_device_stores_the_tensor_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "profile.toml"
    path.write_text(profile_text(None, IMAGE))
    found = read_profile(path)

    assert found.tensor == (IMAGE,)
    assert found.channel == ()


@pytest.mark.parametrize("name", ["pump", "skab", "x86-gateway"])
def test_a_given_profile_is_kept_and_gets_the_tensor_that_it_lacks(tmp_path: Path, name: str) -> None:
    given = read_profile(configs_folder() / "profiles" / f"{name}.toml")
    path = tmp_path / "profile.toml"
    for spec in (given.window_spec, IMAGE):
        path.write_text(profile_text(given, spec))
        found = read_profile(path)
        assert found.channel == given.channel
        assert (found.window, found.source, found.runtimes) == (given.window, given.source, given.runtimes)
        names = {tensor.name for tensor in found.tensor}
        assert names == {tensor.name for tensor in given.tensor} | ({IMAGE.name} if spec is IMAGE else set())


@pytest.mark.parametrize("open_job", [True, False])
def test_the_job_of_tests_is_one_that_a_server_takes(open_job: bool) -> None:
    job = training_job(rounds=7, mode_none=open_job)

    assert parse_job(toml_of(changed(job)).encode(), "job.toml") == job
    assert (job.rounds, job.privacy.mode) == (7, "none" if open_job else "example")


def test_devices_are_named_as_a_fleet_allows() -> None:
    from hedgerow.shared.identity import check_device_name

    assert [check_device_name(device_name(n)) for n in (0, 12)] == ["device-0", "device-12"]
