"""The bundle: a manifest and its artefacts, what training ends in and devices serve.

A bundle's identity is the SHA-256 of its manifest's bytes; the manifest names every artefact by hash and size.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hedgerow.shared import limits
from hedgerow.shared.errors import ContentError, IntegrityError
from hedgerow.shared.specs import TensorSpec
from hedgerow.shared.unreadable import UNREADABLE

Runtime = Literal["onnxruntime", "litert"]
Precision = Literal["float32", "int8"]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Artefact(msgspec.Struct, frozen=True):
    """One runnable file of a bundle."""

    file: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]
    runtime: Runtime
    precision: Precision
    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=1, le=limits.MAX_ARTEFACT_BYTES)]


class Golden(msgspec.Struct, frozen=True):
    """A golden sample: public or synthetic input and the output that each precision must reach.

    ``input`` is what the model takes, after any transform, and ``output`` what it gives: raw little-endian float32 of
    the shapes of the bundle's specs, one sample; ``tolerance`` is the largest absolute difference allowed, per precision.
    """

    input: bytes
    output: bytes
    tolerance: dict[str, float]


class GateCheck(msgspec.Struct, frozen=True):
    """One gate decision with its evidence."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str = ""


class ScoringRule(msgspec.Struct, frozen=True):
    """How an anomaly score and its threshold are made on the device; the fitted values stay there.

    Interpreted by ``hedgerow.shared.scoring``: the same code trains, serves and explains.
    """

    name: str
    version: int
    options: dict[str, Any] = {}


class Lineage(msgspec.Struct, frozen=True):
    """Where a bundle came from."""

    job_id: str
    job_name: str
    rounds: int
    recipe: str
    recipe_hash: str
    model_sha256: Sha256
    feature_set: str
    profile: str = ""
    created: str = ""


class PrivacyReport(msgspec.Struct, frozen=True):
    """What is claimed of the training, and how: one statement per job. ``epsilon`` None means none (ε = ∞).

    ``figures`` are what the claim is reckoned from, and by other accountants and relations, where they are public.
    ``ledger_head`` commits to the server's charges for the job, empty where devices keep the ledger.
    """

    mode: str
    unit: str
    relation: str
    sampling: str
    epsilon: float | None
    delta: float | None
    accountant: str
    noise_source: str
    released: tuple[str, ...]
    withheld: tuple[str, ...]
    notes: tuple[str, ...] = ()
    figures: dict[str, float] = {}
    ledger_head: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """What a bundle is; its bytes are hashed, so they are written once and kept."""

    schema: int
    model: str
    version: int
    task: Literal["anomaly", "classification"]
    input: TensorSpec
    output: TensorSpec
    recipe: str
    parameters: dict[str, Any]
    artefacts: tuple[Artefact, ...]
    golden: tuple[Golden, ...]
    gate: tuple[GateCheck, ...]
    scores: dict[str, float]
    lineage: Lineage
    privacy: PrivacyReport
    scoring: ScoringRule | None = None
    labels: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


# Made at import: two threads that meet a Struct for the first time at once crash msgspec while it reads the type.
_MANIFESTS = msgspec.json.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's canonical bytes (JSON, sorted keys); their SHA-256 is the bundle's identity."""
    return msgspec.json.encode(manifest, order="sorted")


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in ``data``. Raises ContentError if it is over-size or not a manifest."""
    if len(data) > limits.MAX_MANIFEST_BYTES:
        raise ContentError(f"manifest of {len(data)} bytes; at most {limits.MAX_MANIFEST_BYTES}")
    try:
        return _MANIFESTS.decode(data)
    except UNREADABLE as error:
        raise ContentError(f"not a bundle manifest: {error}") from error


def sha256_hex(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data`` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def check_artefact(artefact: Artefact, data: bytes) -> None:
    """Raise IntegrityError unless ``data`` is exactly what the manifest promised."""
    if len(data) != artefact.size_bytes or sha256_hex(data) != artefact.sha256:
        raise IntegrityError(f"artefact {artefact.file}: size or SHA-256 differs from the manifest")
