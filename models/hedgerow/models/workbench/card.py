"""The model card: what a bundle is, for people."""

from __future__ import annotations

from hedgerow.shared.bundle import Manifest, PrivacyReport


def model_card(manifest: Manifest, notes: tuple[str, ...] = ()) -> str:
    """Return the card in Markdown, made from the manifest alone; ``notes`` are remarks from packaging."""
    lineage = manifest.lineage
    parts = [
        f"# {manifest.model} version {manifest.version}",
        f"A model for {manifest.task}, made by the recipe `{manifest.recipe}` in job `{lineage.job_name}` "
        f"(`{lineage.job_id}`), {lineage.rounds} rounds, on {lineage.created}.",
        f"- Input: {_spec(manifest.input.dtype, manifest.input.shape)} (`{manifest.input.name}`), "
        f"feature set `{lineage.feature_set}`\n"
        f"- Output: {_spec(manifest.output.dtype, manifest.output.shape)} (`{manifest.output.name}`)\n"
        f"- Model vector: SHA-256 `{lineage.model_sha256}`\n"
        f"- Recipe code: SHA-256 `{lineage.recipe_hash}`",
        "## Artefacts\n\n" + _artefacts(manifest),
        "## Gate\n\n" + _gate(manifest),
        "## Privacy\n\n" + _privacy(manifest.privacy),
        "## Limits\n\nScores are of the recipe's public or synthetic set, which also calibrated int8; latency is of the "
        "server that packaged it. No reading of any device went into this bundle but through the training above.",
    ]
    if notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _spec(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {' x '.join(map(str, shape))}"


def _artefacts(manifest: Manifest) -> str:
    named = sorted(key for key in manifest.scores if "." not in key)
    lines = [
        f"| file | bytes | p50 us | agreement | {' | '.join(named)} |",
        f"|---|---|---|---|{'---|' * len(named)}",
    ]
    for item in manifest.artefacts:
        prefix = f"{item.runtime}.{item.precision}"
        keys = ["latency_p50_us", "agreement", *named]
        numbers = [manifest.scores.get(f"{prefix}.{key}", float("nan")) for key in keys]
        lines.append(f"| {item.file} | {item.size_bytes} | {' | '.join(f'{n:.4g}' for n in numbers)} |")
    return "\n".join(lines)


def _gate(manifest: Manifest) -> str:
    lines = ["| check | value | limit | |", "|---|---|---|---|"]
    for check in manifest.gate:
        verdict = "passed" if check.passed else "failed"
        lines.append(f"| {check.name} | {check.value:.6g} | {check.limit:.6g} | {verdict} |")
    return "\n".join(lines)


def _privacy(report: PrivacyReport) -> str:
    if report.epsilon is None:
        claim = "No differential privacy is claimed (epsilon is infinite)."
    else:
        claim = f"epsilon = {report.epsilon:.4g}, delta = {report.delta:.3g}, by {report.accountant}."
    lines = [
        claim,
        "",
        f"- Mode: {report.mode}; unit: {report.unit}; neighbours: {report.relation}",
        f"- Sampling: {report.sampling}; noise from: {report.noise_source}",
        f"- Released: {', '.join(report.released) or 'nothing'}; withheld: {', '.join(report.withheld) or 'nothing'}",
    ]
    if report.figures:
        figures = ", ".join(f"{name} {value:.6g}" for name, value in sorted(report.figures.items()))
        lines.append(f"- Figures: {figures}")
    if report.ledger_head:
        lines.append(f"- Ledger: the chain of charges ends in {report.ledger_head}")
    return "\n".join([*lines, *(f"- {note}" for note in report.notes)])
