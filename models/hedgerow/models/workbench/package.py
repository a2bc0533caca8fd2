"""Packaging: a trained model becomes a candidate, passes the gate, and is written as a bundle folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from hedgerow.models.gate.decide import decide, golden_tolerance, limits_of, refusals
from hedgerow.models.gate.evidence import Candidate
from hedgerow.models.gate.measure import measure
from hedgerow.models.recipe import Parameters, recipe_hash
from hedgerow.models.workbench.artefacts import Made, make_artefacts
from hedgerow.models.workbench.bom import bill_of_materials
from hedgerow.models.workbench.card import model_card
from hedgerow.models.workbench.folder import write_folder
from hedgerow.models.workbench.messages import PackageRequest, PackageResult
from hedgerow.models.workbench.modules import Work
from hedgerow.shared.bundle import GateCheck, Golden, Lineage, Manifest, encode_manifest, sha256_hex

Floats = npt.NDArray[np.float32]
SCHEMA = 1


@dataclass(frozen=True)
class Judged:
    """A candidate with what it is made of and what the gate says."""

    artefacts: list[Made]
    candidate: Candidate
    checks: tuple[GateCheck, ...]
    golden: tuple[Golden, ...]
    notes: tuple[str, ...]


def package(request: PackageRequest, work: Work) -> PackageResult:
    """Export, quantise, judge and write one model.

    A candidate that fails the gate is not written: the result says why. Raises ContentError if the model does not fit
    the recipe or an export differs from it, UnsupportedError if it cannot be exported, StorageError if the folder
    exists or cannot be written.
    """
    start = time.monotonic()
    work.load(request.model)
    judged = _judge(request, work)
    scores = score_table(judged.candidate)
    reasons = refusals(judged.checks)
    if reasons:
        return PackageResult("", "", 0, scores, judged.checks, reasons, time.monotonic() - start)
    manifest = _manifest(request, work, judged, scores)
    encoded = encode_manifest(manifest)
    files = {item.file: item.data for item in judged.artefacts}
    files["manifest.json"] = encoded
    files["card.md"] = model_card(manifest, judged.notes).encode()
    files["bom.json"] = bill_of_materials(manifest)
    size = write_folder(request.folder, files)
    taken = time.monotonic() - start
    return PackageResult(request.folder, sha256_hex(encoded), size, scores, judged.checks, (), taken)


def score_table(candidate: Candidate) -> dict[str, float]:
    """Return the numbers of a candidate by key, as the manifest carries them.

    A bare key (``accuracy``) is the float model's score on the public set. ``<runtime>.<precision>.<score>`` is the
    same of one artefact; beside the scores there are ``size_bytes``, ``latency_p50_us`` and ``latency_p99_us`` (one
    sample, one thread, on the server), ``agreement`` with the float model, and ``error``, the largest difference.
    """
    table = dict(candidate.scores)
    for item in candidate.artefacts:
        numbers = {
            **item.scores,
            "agreement": item.agreement,
            "error": item.error,
            "latency_p50_us": item.latency_p50_us,
            "latency_p99_us": item.latency_p99_us,
            "size_bytes": float(item.size_bytes),
        }
        table |= {f"{item.name}.{key}": float(value) for key, value in numbers.items()}
    return table


def _judge(request: PackageRequest, work: Work) -> Judged:
    recipe, public = work.recipe, work.public
    artefacts, notes = make_artefacts(work)
    reference = work.predict(public.x)
    evidence = tuple(
        measure(item.runtime, item.precision, item.data, recipe, work.parameters, public, reference)
        for item in artefacts
    )
    candidate = Candidate(
        recipe.metric,
        recipe.higher_is_better,
        recipe.score(work.predict, public, work.parameters),
        request.champion_scores,
        float(np.abs(reference).max()),
        evidence,
    )
    checks = decide(candidate, limits_of(request.gate, recipe.gate))
    golden = _golden(public.x[public.golden], reference[public.golden], golden_tolerance(candidate))
    return Judged(artefacts, candidate, checks, golden, notes)


def _golden(x: Floats, y: Floats, tolerance: dict[str, float]) -> tuple[Golden, ...]:
    pairs = zip(x.astype("<f4"), y.astype("<f4"), strict=True)
    return tuple(Golden(sample.tobytes(), answer.tobytes(), tolerance) for sample, answer in pairs)


def _manifest(request: PackageRequest, work: Work, judged: Judged, scores: dict[str, float]) -> Manifest:
    recipe, parameters = work.recipe, work.parameters
    lineage = Lineage(
        job_id=request.job_id,
        job_name=request.job_name,
        rounds=request.rounds,
        recipe=recipe.name,
        recipe_hash=recipe_hash(recipe),
        model_sha256=sha256_hex(request.model),
        feature_set=recipe.feature_set(parameters),
        profile=request.profile,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Manifest(
        schema=SCHEMA,
        model=request.model_name,
        version=request.version,
        task=recipe.task,
        input=recipe.input_spec(parameters),
        output=recipe.output_spec(parameters),
        recipe=recipe.name,
        parameters=parameters,
        artefacts=tuple(item.entry for item in judged.artefacts),
        golden=judged.golden,
        gate=judged.checks,
        scores=scores,
        lineage=lineage,
        privacy=request.privacy,
        scoring=recipe.scoring(parameters),
        labels=recipe.labels(parameters),
        channels=request.channels or _named_channels(parameters),
    )


def _named_channels(parameters: Parameters) -> tuple[str, ...]:
    """Return the telemetry channels that a recipe was built for; an image recipe's number of channels names none."""
    found = parameters.get("channels", ())
    return tuple(found) if isinstance(found, list | tuple) else ()
