"""Picks and opens a bundle's artefact: the first that this device can run, and that passes the golden samples."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from hedgerow.edge_agent.inference.bundle_folder import BundleFolder
from hedgerow.edge_agent.inference.golden import check_golden
from hedgerow.edge_agent.inference.runtime import Runtime, open_runtime
from hedgerow.shared.bundle import Artefact, Manifest
from hedgerow.shared.errors import ContentError, UnsupportedError
from hedgerow.shared.profile import DeviceProfile

log = logging.getLogger(__name__)

WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Loaded:
    """An artefact ready to run. ``skipped`` says why artefacts that the profile prefers were not taken."""

    artefact: Artefact
    runtime: Runtime
    skipped: tuple[str, ...]


def preferred(manifest: Manifest, profile: DeviceProfile) -> list[Artefact]:
    """Return the artefacts that the profile allows, best first: by runtime in its order, then by its precision.

    Runtime comes first, so that a device that runs one engine never loads the other for a precision's sake.
    """
    ranked = [item for item in manifest.artefacts if item.runtime in profile.runtimes]
    return sorted(ranked, key=lambda a: (profile.runtimes.index(a.runtime), a.precision != profile.precision))


def load(bundle: BundleFolder, profile: DeviceProfile) -> Loaded:
    """Return the best artefact, opened, golden samples checked, warm.

    Raises ContentError with every reason if none of them runs here, IntegrityError if a file on disk is not what the
    manifest promises: such a bundle is not served at all.
    """
    manifest = bundle.manifest
    skipped: list[str] = []
    for artefact in preferred(manifest, profile):
        path = bundle.verified(artefact)
        try:
            runtime = open_runtime(
                artefact.runtime, path, artefact.precision, manifest.input.shape, manifest.output.shape
            )
        except (ContentError, UnsupportedError) as error:
            skipped.append(f"{artefact.file}: {error}")
            continue
        try:
            for _ in range(WARM_UP_RUNS):
                check_golden(manifest, artefact.precision, runtime.infer)
        except ContentError as error:
            runtime.close()
            skipped.append(f"{artefact.file}: {error}")
            continue
        if runtime.provider != runtime.wanted_provider:
            log.warning("%s runs on %s, not %s", artefact.file, runtime.provider, runtime.wanted_provider)
        return Loaded(artefact, runtime, tuple(skipped))
    why = "; ".join(skipped) or f"it holds nothing for {', '.join(profile.runtimes)}"
    raise ContentError(f"bundle {manifest.model} version {manifest.version} cannot be served here: {why}")
