"""Bundles for tests: the recipes' own, and hand-made ones around any small module, for ``agent_profile``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tests.support.agent_profile import CHANNELS, ROWS, WINDOW
from tests.support.nets import to_tflite, torch_answers
from torch import nn

from hedgerow.models.export.onnx_export import export_onnx
from hedgerow.models.quantise import quantise_onnx, quantise_tflite
from hedgerow.models.workbench.messages import PackageRequest
from hedgerow.shared.bundle import (
    Artefact,
    Golden,
    Lineage,
    Manifest,
    PrivacyReport,
    ScoringRule,
    encode_manifest,
    sha256_hex,
)
from hedgerow.shared.job import GateSpec
from hedgerow.shared.specs import TensorSpec

Floats = npt.NDArray[np.float32]

NO_PRIVACY = PrivacyReport("none", "none", "none", "all", None, None, "none", "none", (), ())
# an untrained classifier is nearly undecided, so that int8 tips some answers over
FOR_UNTRAINED = GateSpec(min_agreement=0.3, max_metric_drop=0.3)
FILES: dict[tuple[str, str], str] = {
    ("onnxruntime", "float32"): "model.float32.onnx",
    ("onnxruntime", "int8"): "model.int8.onnx",
    ("litert", "float32"): "model.float32.tflite",
    ("litert", "int8"): "model.int8.tflite",
}


class WindowNet(nn.Module):
    """A dense autoencoder over windows of ``profile``."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        size = ROWS * len(CHANNELS)
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(size, 6), nn.ReLU(), nn.Linear(6, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction."""
        result: torch.Tensor = self.inner(x).reshape(-1, ROWS, len(CHANNELS))
        return result


class Overflowing(nn.Module):
    """Gives back small windows; larger ones overflow float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input plus a product that is 0 for small values and infinite for large ones."""
        return x + torch.relu(x - 3) * 1e30 * 1e30


def normal_windows(n: int, seed: int = 0, scale: float = 0.5) -> Floats:
    """Return windows as the test device measures them when all is well."""
    return np.random.default_rng(seed).normal(scale=scale, size=(n, *WINDOW.shape)).astype(np.float32)


def artefacts(module: nn.Module, shape: tuple[int, ...], calibration: Floats) -> dict[tuple[str, str], bytes]:
    """Return a module as all four artefacts."""
    onnx, tflite = export_onnx(module, shape), to_tflite(module, shape)
    return {
        ("onnxruntime", "float32"): onnx,
        ("onnxruntime", "int8"): quantise_onnx(onnx, calibration),
        ("litert", "float32"): tflite,
        ("litert", "int8"): quantise_tflite(tflite, calibration),
    }


def write_bundle(
    folder: Path,
    module: nn.Module | None = None,
    *,
    kinds: Sequence[tuple[str, str]] = tuple(FILES),
    calibration: Floats | None = None,
    golden: Floats | None = None,
    tolerance: float = 0.5,
    **changes: Any,
) -> Manifest:
    """Write an anomaly bundle of ``module`` for ``profile`` into ``folder``; ``changes`` replace manifest fields."""
    module = module or WindowNet()
    x = normal_windows(64, 9) if calibration is None else calibration
    made = artefacts(module, x.shape[1:], x)
    samples = x[:2] if golden is None else golden
    answers = torch_answers(module, samples)
    folder.mkdir(parents=True)
    entries = []
    for kind in kinds:
        (folder / FILES[kind]).write_bytes(made[kind])
        entries.append(Artefact(FILES[kind], *kind, sha256_hex(made[kind]), len(made[kind])))  # type: ignore[arg-type]
    fields: dict[str, Any] = {
        "schema": 1,
        "model": "pump",
        "version": 1,
        "task": "anomaly",
        "input": WINDOW,
        "output": TensorSpec("reconstruction", "float32", WINDOW.shape, "window"),
        "recipe": "test",
        "parameters": {},
        "artefacts": tuple(entries),
        "golden": tuple(
            Golden(a.tobytes(), b.tobytes(), {"float32": tolerance, "int8": tolerance})
            for a, b in zip(samples, answers, strict=True)
        ),
        "gate": (),
        "scores": {},
        "lineage": Lineage("job", "job", 1, "test", "0" * 64, "0" * 64, "public-v1"),
        "privacy": NO_PRIVACY,
        "scoring": ScoringRule("residual-chart", 1, {}),
        "channels": CHANNELS,
    }
    manifest = Manifest(**{**fields, **changes})
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return manifest


def rewrite(folder: Path, manifest: Manifest) -> None:
    """Put another manifest into a bundle folder."""
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))


def package_request(recipe: str, model: bytes, folder: Path, **changes: Any) -> PackageRequest:
    """Return a request to package a model of ``recipe`` with its default parameters."""
    fields: dict[str, Any] = {
        "job_id": "job-1",
        "job_name": "a-job",
        "rounds": 3,
        "recipe": recipe,
        "parameters": {},
        "model": model,
        "model_name": "a-model",
        "version": 4,
        "privacy": NO_PRIVACY,
        "folder": str(folder),
        "profile": "test-device",
        "gate": FOR_UNTRAINED,
    }
    return PackageRequest(**{**fields, **changes})
