"""A trained job becomes one registered version and one rollout, however often a restart hands it over again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.delivery import manifest_of, write_bundle
from tests.support.server_parts import FILES, Parts

from hedgerow.models.workbench.messages import PackageRequest, PackageResult
from hedgerow.server.app.packaging import Packaging
from hedgerow.server.jobs.seams import TrainedJob
from hedgerow.shared.bundle import Lineage
from hedgerow.shared.errors import ContentError, StorageError
from hedgerow.shared.job import Job, PopulationSpec, PrivacySpec


class Bench:
    """Writes hand-made bundles where the workbench would write real ones (its own tests make those)."""

    def __init__(self) -> None:
        self.asked: list[PackageRequest] = []
        self.refusals: tuple[str, ...] = ()
        self.running = 0
        self.most = 0

    async def package(self, request: PackageRequest) -> PackageResult:
        self.asked.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        if not self.refusals:
            files = {name: data + str(request.version).encode() for name, data in FILES.items()}
            lineage = Lineage(
                request.job_id, request.job_name, request.rounds, request.recipe, "h", "0" * 64, "raw-1"
            )
            scores = {"auroc": 0.9 + request.version / 100}
            manifest = manifest_of(request.model_name, request.version, files, lineage=lineage, scores=scores)
            write_bundle(Path(request.folder), manifest, files)
        return PackageResult(request.folder, "", 0, {}, (), self.refusals)


def trained(job_id: str = "j-1", **changes: Any) -> TrainedJob:
    job = Job(
        "pump",
        "anomaly-autoencoder",
        PrivacySpec("example", 8.0, 1e-5),
        population=PopulationSpec(profile="pump"),
    )
    return TrainedJob(
        job_id, msgspec.structs.replace(job, **changes), "h", b"\0" * 8, 5, 3.0, 1e-5, 2, {"auroc": 0.9}, {}
    )


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def packaging(parts: Parts, bench: Bench) -> Packaging:
    parts.join("pump-1")
    return Packaging(bench, parts.registry, parts.rollouts, parts.home.work)


def pack(packaging: Packaging, *jobs: TrainedJob) -> list[dict[str, Any]]:
    async def story() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(packaging(job) for job in jobs)))

    return asyncio.run(story())


def test_a_trained_job_is_registered_and_rolled_out(packaging: Packaging, parts: Parts) -> None:
    (result,) = pack(packaging, trained())

    found = parts.registry.get("pump", 1)
    assert result == {
        "model": "pump", "version": 1, "manifest_sha256": found.manifest_sha256, "rollout": parts.rollouts.in_force()[0].id,
    }  # fmt: skip
    assert found.aliases == ("champion",)
    assert [target.version for target in parts.fleet.desired.get("pump-1").bundles] == [1]


def test_the_same_job_again_is_the_same_version_and_rollout(
    packaging: Packaging, parts: Parts, bench: Bench
) -> None:
    first = pack(packaging, trained())
    again = pack(packaging, trained())

    assert again == first
    assert len(bench.asked) == 1
    assert len(parts.rollouts.list_rollouts()) == 1


def test_a_crash_between_registering_and_rolling_out_is_mended(
    packaging: Packaging, parts: Parts, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(model: str, version: int) -> None:
        raise StorageError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(parts.rollouts, "start", fails)
        with pytest.raises(StorageError):
            pack(packaging, trained())
    (result,) = pack(packaging, trained())

    assert (result["version"], len(bench.asked)) == (1, 1)
    assert parts.rollouts.in_force()[0].version == 1


def test_a_manual_rollout_waits_for_a_person(packaging: Packaging, parts: Parts) -> None:
    (result,) = pack(packaging, trained(rollout="manual"))

    assert "rollout" not in result
    assert parts.rollouts.in_force() == []
    assert parts.registry.get("pump", 1).aliases == ()


def test_a_candidate_that_the_gate_refuses_is_not_registered_and_says_why(
    packaging: Packaging, parts: Parts, bench: Bench
) -> None:
    bench.refusals = ("agreement 0.4 is below 0.95", "too large")

    with pytest.raises(ContentError, match=r"refused the candidate: agreement 0.4 is below 0.95; too large"):
        pack(packaging, trained())

    assert parts.registry.find_by_job("j-1") is None
    assert parts.fleet.desired.get("pump-1").bundles == ()


def test_the_next_candidate_is_held_against_the_champions_scores(packaging: Packaging, bench: Bench) -> None:
    pack(packaging, trained())
    pack(packaging, trained("j-2"))

    assert [request.champion_scores for request in bench.asked] == [{}, {"auroc": 0.91}]
    assert [request.version for request in bench.asked] == [1, 2]


def test_the_request_says_what_was_trained_and_how_private(packaging: Packaging, bench: Bench) -> None:
    pack(packaging, trained())

    (request,) = bench.asked
    assert (request.job_id, request.rounds, request.profile, request.model) == ("j-1", 5, "pump", b"\0" * 8)
    assert (request.privacy.mode, request.privacy.epsilon) == ("example", 8.0)


def test_two_jobs_of_one_model_are_packaged_one_after_the_other(
    packaging: Packaging, parts: Parts, bench: Bench
) -> None:
    results = pack(packaging, trained(), trained("j-2"))

    assert bench.most == 1
    assert sorted(result["version"] for result in results) == [1, 2]
    assert parts.registry.aliases("pump") == {"champion": 2, "previous": 1}


def test_nothing_is_left_in_the_work_folder(packaging: Packaging, parts: Parts) -> None:
    pack(packaging, trained())

    assert [path.name for path in parts.home.work.iterdir()] == []


def test_leftovers_of_a_crash_do_not_stand_in_the_way(packaging: Packaging, parts: Parts) -> None:
    torn = parts.home.work / "pump-1"
    torn.mkdir(parents=True)
    (torn / "manifest.json").write_text("{")

    assert pack(packaging, trained())[0]["version"] == 1
