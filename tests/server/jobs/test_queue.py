"""Which queued jobs may start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.server.jobs.queue import Waiting, startable


def waiting(job_id: str, devices: str) -> Waiting:
    return Waiting(job_id, frozenset(devices))


def test_jobs_on_the_same_device_run_one_after_the_other_in_order() -> None:
    assert startable([waiting("1", "ab"), waiting("2", "b")], []) == ["1"]


def test_jobs_on_different_devices_run_side_by_side() -> None:
    assert startable([waiting("1", "ab"), waiting("2", "c")], []) == ["1", "2"]


def test_a_job_waits_for_a_running_one_that_has_its_device() -> None:
    assert startable([waiting("1", "ab"), waiting("2", "c")], [frozenset("b")]) == ["2"]


def test_a_later_job_never_overtakes_an_earlier_one_that_it_would_delay() -> None:
    assert startable([waiting("1", "ab"), waiting("2", "a")], [frozenset("b")]) == []


@given(queue=st.lists(st.sets(st.sampled_from("abcdef"))), busy=st.lists(st.sets(st.sampled_from("abcdef"))))
def test_no_device_is_ever_in_two_jobs_and_the_first_in_line_is_never_starved(
    queue: list[set[str]], busy: list[set[str]]
) -> None:
    jobs = [waiting(str(i), "".join(devices)) for i, devices in enumerate(queue)]
    chosen = startable(jobs, busy)
    used: set[str] = set().union(*busy)
    for job in jobs:
        if job.job_id in chosen:
            assert used.isdisjoint(job.devices)
            used |= job.devices
    if jobs and jobs[0].devices.isdisjoint(set().union(*busy)):
        assert chosen[0] == jobs[0].job_id
