"""Who is connected for which job: one process per device and job, the newer one wins, the silent one goes."""

from __future__ import annotations

from hedgerow.server.flower.trainers import Trainers


def test_a_newer_process_replaces_the_older_one_of_its_job_only() -> None:
    trainers = Trainers(60.0)
    assert trainers.activate("a", "one", "x", 0.0) is None
    assert trainers.activate("a", "two", "y", 0.0) is None
    replaced = trainers.activate("a", "one", "z", 1.0)
    assert replaced is not None
    assert (replaced.job_id, replaced.activation) == ("one", "x")
    assert not trainers.touch("a", "one", "x", 2.0)
    assert trainers.touch("a", "two", "y", 2.0)


def test_activating_again_is_no_replacement() -> None:
    trainers = Trainers(60.0)
    trainers.activate("a", "one", "x", 0.0)
    assert trainers.activate("a", "one", "x", 5.0) is None


def test_only_the_active_process_can_leave() -> None:
    trainers = Trainers(60.0)
    trainers.activate("a", "one", "new", 0.0)
    assert trainers.leave("a", "one", "old") is None
    assert trainers.has("a")
    assert trainers.leave("a", "one", "new") is not None
    assert not trainers.has("a")


def test_silence_ends_a_trainer_and_a_sign_of_life_does_not() -> None:
    trainers = Trainers(60.0)
    trainers.activate("a", "one", "x", 0.0)
    trainers.activate("b", "one", "y", 0.0)
    trainers.touch("a", "one", "x", 50.0)
    assert trainers.online("one", stock=False, now=61.0) == {"a"}
    assert [gone.device for gone in trainers.expire(61.0)] == ["b"]


def test_stock_nodes_are_counted_for_stock_jobs_only() -> None:
    trainers = Trainers(60.0)
    trainers.activate("ours", "one", "x", 0.0)
    trainers.activate("stock", "", "", 0.0)
    assert trainers.online("one", stock=False, now=1.0) == {"ours"}
    assert trainers.online("one", stock=True, now=1.0) == {"stock"}


def test_dropping_a_device_takes_all_its_processes_or_those_of_one_job() -> None:
    trainers = Trainers(60.0)
    for job in ("one", "two"):
        trainers.activate("a", job, job, 0.0)
    assert [gone.job_id for gone in trainers.drop("a", "one")] == ["one"]
    assert [gone.job_id for gone in trainers.drop("a")] == ["two"]
    assert trainers.drop("a") == []
