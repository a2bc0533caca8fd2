"""The registry's answers as plain values for tables and ``--json``: what ``hedgerow model list`` and ``show`` print."""

from __future__ import annotations

from typing import Any

import msgspec

from hedgerow.server.registry.service import Registry
from hedgerow.shared.bundle import Golden


def list_facts(registry: Registry, model: str | None = None) -> list[dict[str, Any]]:
    """Return one row a model, or one a version of ``model``. Raises ModelNotFoundError."""
    if model is None:
        return [_builtins(summary) for summary in registry.list_models()]
    return [
        {
            "model": version.model,
            "version": version.version,
            "aliases": list(version.aliases),
            "manifest_sha256": version.manifest_sha256,
            "size_bytes": version.size_bytes,
            "job": version.lineage.job_name,
            "rounds": version.lineage.rounds,
            "privacy": version.privacy.mode,
            "epsilon": version.privacy.epsilon,
            "registered": version.registered.isoformat(timespec="seconds"),
            "yanked": version.yanked is not None,
        }
        for version in registry.list_versions(model)
    ]


def show_facts(registry: Registry, reference: str) -> dict[str, Any]:
    """Return everything about ``name``, ``name@champion`` or ``name@VERSION`` except the golden samples' bytes.

    Raises ModelNotFoundError.
    """
    version = registry.resolve(reference)
    manifest = registry.manifest(version.model, version.version)
    told = _builtins(msgspec.structs.replace(manifest, golden=()))
    told["golden"] = [_golden(golden) for golden in manifest.golden]
    return {**_builtins(version), "manifest": told}


def _golden(golden: Golden) -> dict[str, Any]:
    return {
        "input_bytes": len(golden.input),
        "output_bytes": len(golden.output),
        "tolerance": golden.tolerance,
    }


def _builtins(value: msgspec.Struct) -> dict[str, Any]:
    converted: dict[str, Any] = msgspec.to_builtins(value)
    return converted
