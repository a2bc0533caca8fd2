"""The bill of materials: CycloneDX 1.6 with a machine-learning model as its subject."""

from __future__ import annotations

import json
import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hedgerow.shared.bundle import Manifest

_TOOLS = ("ai-edge-quantizer", "hedgerow", "numpy", "onnx", "onnxruntime", "torch")
_SPACE = uuid.UUID("6a2f0c1e-5f0b-4d43-9b62-6d2f5b1d7c55")


def bill_of_materials(manifest: Manifest) -> bytes:
    """Return the bill as JSON; the same manifest on the same installation gives the same bytes."""
    serial = uuid.uuid5(_SPACE, f"{manifest.model}:{manifest.version}:{manifest.lineage.model_sha256}")
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.lineage.created,
            "tools": {"components": [_library("hedgerow")]},
            "component": _model(manifest),
        },
        "components": [*_files(manifest), _public_set(manifest), *(_library(name) for name in _TOOLS)],
        "dependencies": [{"ref": "model", "dependsOn": [item.file for item in manifest.artefacts]}],
    }
    return json.dumps(bill, indent=1, sort_keys=True).encode()


def _model(manifest: Manifest) -> dict[str, Any]:
    privacy = manifest.privacy
    facts = {
        "hedgerow:job": manifest.lineage.job_id,
        "hedgerow:recipe": f"{manifest.recipe}@{manifest.lineage.recipe_hash}",
        "hedgerow:model-sha256": manifest.lineage.model_sha256,
        "hedgerow:privacy-mode": privacy.mode,
        "hedgerow:epsilon": "infinite" if privacy.epsilon is None else repr(privacy.epsilon),
        "hedgerow:delta": "none" if privacy.delta is None else repr(privacy.delta),
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": manifest.model,
        "version": str(manifest.version),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "self-supervised" if manifest.task == "anomaly" else "supervised"},
                "task": manifest.task,
                "datasets": [{"ref": "public-set"}],
                "inputs": [{"format": f"{manifest.input.dtype} {list(manifest.input.shape)}"}],
                "outputs": [{"format": f"{manifest.output.dtype} {list(manifest.output.shape)}"}],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    {"type": key, "value": repr(value)} for key, value in sorted(manifest.scores.items())
                ]
            },
        },
        "properties": [{"name": name, "value": value} for name, value in facts.items()],
    }


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "bom-ref": item.file,
            "name": item.file,
            "hashes": [{"alg": "SHA-256", "content": item.sha256}],
        }
        for item in manifest.artefacts
    ]


def _public_set(manifest: Manifest) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": "public-set",
        "name": f"public set of {manifest.recipe}",
        "data": [{"type": "dataset", "name": "calibration, golden samples and scores; never device data"}],
    }


def _library(name: str) -> dict[str, Any]:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = "not installed"
    return {"type": "library", "bom-ref": f"pkg:{name}", "name": name, "version": found}
