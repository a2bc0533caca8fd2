"""What is known of a candidate: one record per artefact, measured elsewhere, judged in ``decide``."""

from __future__ import annotations

from dataclasses import dataclass

from hedgerow.shared.bundle import Precision, Runtime


@dataclass(frozen=True)
class ArtefactEvidence:
    """Measurements of one artefact on the recipe's public set.

    ``agreement`` is the recipe's, against the float model, in ``[0, 1]``. ``error`` is the largest absolute output
    difference outside the golden samples, ``golden_error`` the one on them. ``non_finite`` counts output values.
    """

    runtime: Runtime
    precision: Precision
    size_bytes: int
    agreement: float
    scores: dict[str, float]
    latency_p50_us: float
    latency_p99_us: float
    non_finite: int
    error: float
    golden_error: float

    @property
    def name(self) -> str:
        """Short name, as in check names and score keys: ``onnxruntime.int8``."""
        return f"{self.runtime}.{self.precision}"


@dataclass(frozen=True)
class Candidate:
    """A candidate with its artefacts. ``scores`` are the float model's; ``magnitude`` its largest absolute output."""

    metric: str
    higher_is_better: bool
    scores: dict[str, float]
    champion_scores: dict[str, float]
    magnitude: float
    artefacts: tuple[ArtefactEvidence, ...]
