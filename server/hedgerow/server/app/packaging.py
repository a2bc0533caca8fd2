"""What happens to a trained model: packaged and gated by the workbench, registered, signed, rolled out."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Protocol

from hedgerow.models.workbench.messages import PackageRequest, PackageResult
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.jobs.seams import TrainedJob
from hedgerow.server.registry.aliases import CHAMPION
from hedgerow.server.registry.service import Registry
from hedgerow.server.registry.values import ModelVersion
from hedgerow.shared.errors import ContentError
from hedgerow.shared.privacy.report import privacy_report


class Packager(Protocol):
    """The workbench, as far as it is needed here."""

    async def package(self, request: PackageRequest) -> PackageResult:
        """Export, quantise and gate; leave the bundle in the request's folder."""


class Packaging:
    """Takes trained jobs. Safe to call again for the same job after a restart: a registered bundle is found again."""

    def __init__(self, bench: Packager, registry: Registry, rollouts: Rollouts, work: Path) -> None:
        self._bench = bench
        self._registry = registry
        self._rollouts = rollouts
        self._work = work
        self._one = asyncio.Lock()

    async def __call__(self, trained: TrainedJob) -> dict[str, Any]:
        """Return ``{model, version, manifest_sha256, rollout}``.

        Raises ContentError with the gate's reasons if the candidate is refused, and whatever packaging raises.
        """
        # One at a time: versions are reserved before they are registered, and must be registered in order.
        async with self._one:
            done = await asyncio.to_thread(self._registry.find_by_job, trained.job_id)
            if done is None:
                done = await self._package(trained)
            result: dict[str, Any] = {
                "model": done.model,
                "version": done.version,
                "manifest_sha256": done.manifest_sha256,
            }
            if trained.job.rollout == "auto":
                rollout = await asyncio.to_thread(self._rollouts.start, done.model, done.version)
                result["rollout"] = rollout.id
            return result

    async def _package(self, trained: TrainedJob) -> ModelVersion:
        model = trained.job.name
        version = await asyncio.to_thread(self._registry.next_version, model)
        folder = self._work / f"{model}-{version}"
        shutil.rmtree(folder, ignore_errors=True)
        self._work.mkdir(parents=True, exist_ok=True)
        report = await asyncio.to_thread(privacy_report, trained.job.privacy, trained.central)
        request = PackageRequest(
            job_id=trained.job_id,
            job_name=trained.job.name,
            rounds=trained.rounds,
            recipe=trained.job.recipe,
            parameters=trained.job.parameters,
            model=trained.model,
            model_name=model,
            version=version,
            privacy=report,
            folder=str(folder),
            gate=trained.job.gate,
            champion_scores=await asyncio.to_thread(self._champion_scores, model),
            profile=trained.job.population.profile or "",
        )
        result = await self._bench.package(request)
        if not result.accepted:
            raise ContentError(f"the gate refused the candidate: {'; '.join(result.refusals)}")
        try:
            return await asyncio.to_thread(self._registry.register, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _champion_scores(self, model: str) -> dict[str, float]:
        champion = self._registry.aliases(model).get(CHAMPION)
        return self._registry.manifest(model, champion).scores if champion else {}
