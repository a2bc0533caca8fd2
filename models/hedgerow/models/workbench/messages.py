"""What the server asks of the workbench, and what it answers; msgpack, one tagged value a frame."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hedgerow.shared.bundle import GateCheck, PrivacyReport
from hedgerow.shared.job import GateSpec
from hedgerow.shared.specs import TensorSpec


class DescribeRequest(msgspec.Struct, frozen=True, tag="describe"):
    """Ask what a recipe is with these parameters."""

    recipe: str
    parameters: dict[str, Any]


class InitialRequest(msgspec.Struct, frozen=True, tag="initial"):
    """Ask for an untrained model; ``seed`` decides its values."""

    recipe: str
    parameters: dict[str, Any]
    seed: int


class ScoreRequest(msgspec.Struct, frozen=True, tag="score"):
    """Ask for a model's scores on the recipe's public set; ``model`` is raw little-endian float32."""

    recipe: str
    parameters: dict[str, Any]
    model: bytes


class PackageRequest(msgspec.Struct, frozen=True, tag="package"):
    """Ask for a bundle of a trained model, written as the folder ``folder``, which must not exist yet.

    ``model`` is raw little-endian float32. ``champion_scores`` are the scores of the model now served, empty if none.
    ``channels`` are the profile's, in its order; empty takes the recipe's.
    """

    job_id: str
    job_name: str
    rounds: int
    recipe: str
    parameters: dict[str, Any]
    model: bytes
    model_name: str
    version: int
    privacy: PrivacyReport
    folder: str
    gate: GateSpec = GateSpec()
    champion_scores: dict[str, float] = {}
    profile: str = ""
    channels: tuple[str, ...] = ()


class Description(msgspec.Struct, frozen=True, tag="description"):
    """What a recipe is; ``parameters`` have their defaults filled in."""

    recipe: str
    recipe_hash: str
    recipe_version: str
    task: Literal["anomaly", "classification"]
    metric: str
    higher_is_better: bool
    n_parameters: int
    parameters: dict[str, Any]
    input: TensorSpec
    output: TensorSpec
    feature_set: str


class Model(msgspec.Struct, frozen=True, tag="model"):
    """A flat model vector, raw little-endian float32."""

    data: bytes


class Scores(msgspec.Struct, frozen=True, tag="scores"):
    """Scores by name."""

    scores: dict[str, float]


class PackageResult(msgspec.Struct, frozen=True, tag="packaged"):
    """What became of a candidate. ``refusals`` says why it was refused; then nothing was written."""

    folder: str
    manifest_sha256: str
    size_bytes: int
    scores: dict[str, float]
    checks: tuple[GateCheck, ...]
    refusals: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether the bundle may be registered."""
        return not self.refusals


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """Why a request failed: the error's class name in ``hedgerow.shared.errors``, and its message."""

    kind: str
    message: str


Request = DescribeRequest | InitialRequest | ScoreRequest | PackageRequest
Response = Description | Model | Scores | PackageResult | Failure
