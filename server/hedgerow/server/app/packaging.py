"""What happens to a trained model: packaged and gated by the workbench, registered, signed, rolled out."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

from hedgerow.models.workbench.client import Workbench
from hedgerow.models.workbench.messages import PackageRequest
from hedgerow.server.bus import Bus
from hedgerow.server.delivery.rollouts import Rollouts
from hedgerow.server.jobs.seams import TrainedJob
from hedgerow.server.registry.service import Registry
from hedgerow.shared.errors import ContentError
from hedgerow.shared.privacy.report import privacy_report

_log = logging.getLogger(__name__)


class Packaging:
    """Takes trained jobs. Safe to call again for the same job after a restart: a registered bundle is found again."""

    def __init__(
        self, bench: Workbench, registry: Registry, rollouts: Rollouts, bus: Bus, work: Path
    ) -> None:
        self._bench = bench
        self._registry = registry
        self._rollouts = rollouts
        self._bus = bus
        self._work = work

    async def __call__(self, trained: TrainedJob) -> dict[str, Any]:
        """Return ``{model, version, manifest_sha256, rollout}``.

        Raises ContentError with the gate's reasons if the candidate is refused, and whatever packaging raises.
        """
        done = await asyncio.to_thread(self._registered, trained.job_id)
        if done is None:
            done = await self._package(trained)
        model, version, digest = done
        result: dict[str, Any] = {"model": model, "version": version, "manifest_sha256": digest}
        if trained.job.rollout == "auto":
            rollout = await asyncio.to_thread(self._rollouts.start, model, version)
            result["rollout"] = rollout.id
        return result

    async def _package(self, trained: TrainedJob) -> tuple[str, int, str]:
        model = trained.job.name
        version = await asyncio.to_thread(self._registry.next_version, model)
        folder = self._work / f"{model}-{version}"
        shutil.rmtree(folder, ignore_errors=True)
        self._work.mkdir(parents=True, exist_ok=True)
        request = PackageRequest(
            job_id=trained.job_id,
            job_name=trained.job.name,
            rounds=trained.rounds,
            recipe=trained.job.recipe,
            parameters=trained.job.parameters,
            model=trained.model,
            model_name=model,
            version=version,
            privacy=privacy_report(trained.job.privacy),
            folder=str(folder),
            gate=trained.job.gate,
            champion_scores=await asyncio.to_thread(self._champion_scores, model),
            profile=trained.job.population.profile or "",
        )
        result = await self._bench.package(request)
        if not result.accepted:
            raise ContentError(f"the gate refused the candidate: {'; '.join(result.refusals)}")
        try:
            registered = await asyncio.to_thread(self._registry.register, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return registered.model, registered.version, registered.manifest_sha256

    def _registered(self, job_id: str) -> tuple[str, int, str] | None:
        for summary in self._registry.list_models():
            for version in self._registry.list_versions(summary.model) if summary.versions else ():
                if version.lineage.job_id == job_id:
                    return version.model, version.version, version.manifest_sha256
        return None

    def _champion_scores(self, model: str) -> dict[str, float]:
        champion = self._registry.aliases(model).get("champion") if self._known(model) else None
        return self._registry.manifest(model, champion).scores if champion else {}

    def _known(self, model: str) -> bool:
        return any(summary.model == model for summary in self._registry.list_models())
