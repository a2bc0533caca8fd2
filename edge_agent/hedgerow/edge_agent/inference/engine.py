"""The device's inference: every sample gets an answer, from the best model that can give one.

Bundles are opened and checked beside the ones that serve, then switched in by exchanging one value; callers on their
way to a retired bundle ask again. What a bundle needs fitted on this device is fitted on the history of samples.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from hedgerow.edge_agent.inference.baseline import Baseline
from hedgerow.edge_agent.inference.bundle_folder import BundleFolder, read_bundle
from hedgerow.edge_agent.inference.chain import Chain
from hedgerow.edge_agent.inference.fitted_file import FittedFile, prune
from hedgerow.edge_agent.inference.histogram import merged
from hedgerow.edge_agent.inference.loader import load
from hedgerow.edge_agent.inference.prediction import Prediction
from hedgerow.edge_agent.inference.served import RetiredError, Served
from hedgerow.edge_agent.inference.tasks import make_task
from hedgerow.shared.bundle import Artefact
from hedgerow.shared.errors import ContentError, HedgerowError
from hedgerow.shared.messages import BundleReport, LatencyHistogram
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.scoring import Fitted
from hedgerow.shared.specs import TensorSpec

log = logging.getLogger(__name__)

Array = npt.NDArray[np.generic]
Role = Literal["champion", "previous"]


class History(Protocol):
    """Where raw samples of this device come from, for fitting."""

    def __call__(self, spec: str, limit: int) -> Array:
        """Return up to ``limit`` raw samples of ``spec``, ``(n, *shape)``, oldest first."""


@dataclass(frozen=True)
class FitPolicy:
    """When to fit: with ``min_samples`` in the history, on at most ``max_samples``, retried every ``retry_every``."""

    min_samples: int = 32
    max_samples: int = 1024
    retry_every: int = 4


class Engine:
    """Answers samples by spec name. All methods may be called from any thread.

    ``state`` keeps what the baseline fitted; what a bundle fitted lies beside its slot folder.
    """

    def __init__(
        self, profile: DeviceProfile, state: Path, history: History, policy: FitPolicy | None = None
    ) -> None:
        self._profile = profile
        self._history = history
        self._policy = policy or FitPolicy()
        self._specs = _specs(profile)
        baseline = Baseline(profile, state) if profile.channel else None
        chains = {name: Chain() for name in self._specs}
        if baseline is not None:
            chains[profile.window.name] = Chain(baseline=baseline)
        self._chains: Mapping[str, Chain] = MappingProxyType(chains)
        self._change = threading.Lock()
        self._fitting = threading.Lock()
        self._counting = threading.Lock()
        self._since_fit: dict[str, int] = {}
        self._total = 0
        self._alarms = 0

    @property
    def predictions_total(self) -> int:
        """Samples answered since the start."""
        return self._total

    @property
    def alarms_total(self) -> int:
        """Answers that were alarms."""
        return self._alarms

    def specs(self) -> Mapping[str, TensorSpec]:
        """Return the tensors that this device answers for, by name."""
        return MappingProxyType(self._specs)

    def prepare(self, folder: Path) -> Served:
        """Open the bundle in ``folder``: hashes, golden samples on the runtime chosen, warm-up, fitting if possible.

        What serves is not touched. Raises ContentError (IntegrityError for a wrong hash) if it cannot be served on
        this device, StorageError if it cannot be read.
        """
        bundle = read_bundle(folder)
        manifest = bundle.manifest
        spec = self._specs.get(manifest.input.name)
        if spec is None or (spec.dtype, spec.shape) != (manifest.input.dtype, manifest.input.shape):
            have = ", ".join(f"{s.name} {s.dtype} {s.shape}" for s in self._specs.values()) or "none"
            raise ContentError(
                f"model {manifest.model} takes {manifest.input.name} {manifest.input.dtype} {manifest.input.shape}; "
                f"this device has {have}"
            )
        loaded = load(bundle, self._profile)
        try:
            task = make_task(manifest, self._profile, self._fitted_file(bundle, loaded.artefact))
        except HedgerowError:
            loaded.runtime.close()
            raise
        served = Served(bundle, loaded, task)
        self._fit_one(manifest.input.name, served)
        return served

    def switch(self, served: Served, role: Role = "champion") -> None:
        """Let a prepared bundle serve. As champion it makes the one before it ``previous``, and that one goes."""
        name = served.manifest.input.name
        with self._change:
            chain = self._chains[name]
            if role == "previous":
                retired, new = chain.previous, replace(chain, previous=served)
            elif chain.champion is None:
                retired, new = None, replace(chain, champion=served)
            else:
                retired, new = chain.previous, replace(chain, champion=served, previous=chain.champion)
            self._put(name, new)
        if retired is not None:
            retired.retire()

    def load(self, folder: Path, role: Role = "champion") -> None:
        """Prepare the bundle in ``folder`` and switch to it. Raises as ``prepare``; then nothing changes."""
        self.switch(self.prepare(folder), role)

    def unload(self, model: str) -> None:
        """Stop serving every version of ``model``; the rest of the chain answers."""
        retired: list[Served] = []
        with self._change:
            for name, chain in self._chains.items():
                kept = {
                    role: link if link is None or link.manifest.model != model else None
                    for role, link in (("champion", chain.champion), ("previous", chain.previous))
                }
                links = (chain.champion, chain.previous)
                retired += [link for link in links if link is not None and link not in kept.values()]
                self._put(name, Chain(kept["champion"], kept["previous"], chain.baseline))
        for link in retired:
            link.retire()

    def predict(self, spec: str, sample: Array, *, live: bool = False) -> Prediction:
        """Return the answer for one raw sample of ``spec``.

        ``live`` is for the device's own telemetry in order of time: where a bundle's rule follows the machine, such
        samples move what counts as normal. Questions that somebody asks do not.
        Raises ContentError if there is no such spec, or the sample is not of it or not finite: the caller's fault.
        Whatever fails in a model instead falls through the chain, with its reason in ``detail``.
        """
        wanted = self._specs.get(spec)
        if wanted is None:
            raise ContentError(f"no tensor {spec!r}; there are {', '.join(self._specs) or 'none'}")
        wanted.check(sample[None])
        if sample.dtype.kind == "f" and not np.isfinite(sample).all():
            raise ContentError(f"tensor {spec!r}: a value is not finite")
        start = time.perf_counter_ns()
        self._fit_if_due(spec)
        while True:
            try:
                outcome = self._chains[spec].answer(sample, live)
                break
            except RetiredError:
                continue
        with self._counting:
            self._total += 1
            self._alarms += outcome.answer.alarm
        latency_us = max(1, (time.perf_counter_ns() - start) // 1000)
        return Prediction(spec, outcome.reason, outcome.source, outcome.answer, latency_us, outcome.detail)

    def reports(self) -> tuple[BundleReport, ...]:
        """Return what serves, for the device's reported state."""
        return tuple(
            BundleReport(
                link.source.model,
                link.source.version,
                link.source.bundle,
                "serving",
                link.source.runtime,
                link.source.precision,
                link.source.provider,
                "; ".join(link.skipped)[:1000],
            )
            for chain in self._chains.values()
            if (link := chain.champion or chain.previous) is not None
        )

    def failures(self, model: str) -> int:
        """Return how many samples the serving version of ``model`` could not answer."""
        links = [chain.champion for chain in self._chains.values()]
        return sum(link.failures for link in links if link is not None and link.manifest.model == model)

    def latency(self) -> dict[str, LatencyHistogram]:
        """Return latencies per model served now, over its champion and previous version."""
        found: dict[str, list[LatencyHistogram]] = {}
        for chain in self._chains.values():
            for link in (chain.champion, chain.previous):
                if link is not None:
                    found.setdefault(link.manifest.model, []).append(link.latency())
        return {model: merged(histograms) for model, histograms in found.items()}

    def close(self) -> None:
        """Retire everything; later predictions are ``unknown`` or the baseline's."""
        with self._change:
            chains = dict(self._chains)
            self._chains = MappingProxyType({n: Chain(baseline=c.baseline) for n, c in chains.items()})
        for chain in chains.values():
            for link in (chain.champion, chain.previous):
                if link is not None:
                    link.retire()

    def _put(self, name: str, chain: Chain) -> None:
        self._chains = MappingProxyType({**self._chains, name: chain})

    def _fitted_file(self, bundle: BundleFolder, artefact: Artefact) -> FittedFile[Fitted]:
        folder = bundle.folder.resolve().parent
        prune(folder, "fitted-*.json")
        # the artefact too: its own quantisation error is part of what was fitted
        key = f"{bundle.identity}/{artefact.file}/{self._profile.name}/{self._profile.version}"
        return FittedFile(folder / f"fitted-{bundle.identity[:16]}.json", key, Fitted)

    def _fit_if_due(self, spec: str) -> None:
        chain = self._chains[spec]
        if not chain.unfitted:
            return
        waited = self._since_fit.get(spec, 0)
        self._since_fit[spec] = (waited + 1) % self._policy.retry_every
        if waited == 0 and self._fitting.acquire(blocking=False):
            try:
                for link in (chain.champion, chain.previous, chain.baseline):
                    if link is not None:
                        self._fit_one(spec, link)
            finally:
                self._fitting.release()

    def _fit_one(self, spec: str, link: Served | Baseline) -> None:
        if link.ready:
            return
        samples = self._history(spec, self._policy.max_samples)
        if len(samples) < self._policy.min_samples:
            return
        try:
            link.fit(samples)
        except (ContentError, RetiredError) as error:
            log.warning("cannot fit on %d samples of %s: %s", len(samples), spec, error)


def _specs(profile: DeviceProfile) -> dict[str, TensorSpec]:
    specs = {spec.name: spec for spec in profile.tensor}
    if profile.channel:
        specs[profile.window.name] = profile.window_spec
    return specs
