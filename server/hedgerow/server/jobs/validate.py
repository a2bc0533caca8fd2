"""What a job may ask for beyond its types: combinations that are built, sound, and known to the fleet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from hedgerow.server.strategies.catalogue import check_strategy
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import BUILT_MODES, CENTRAL_MODES, Job, PrivacySpec
from hedgerow.shared.privacy.central import check_central


def check_job(job: Job, where: str) -> None:
    """Raise ConfigError, naming file, key and what is expected, if ``job`` contradicts itself or asks for too much."""
    _check_finite(job, where)
    _check_privacy(job, where)
    _check_cohort(job, where)
    check_strategy(job, where)
    if job.wire == "flower" and job.privacy.mode != "none":
        raise ConfigError(
            f"{where}: wire: 'flower' speaks to stock client apps, which keep no privacy ledger; "
            f"expected 'packed' with privacy.mode = {job.privacy.mode!r}"
        )
    if job.wire == "flower" and job.packing != "float32":
        raise ConfigError(f"{where}: packing: expected 'float32' with wire = 'flower', got {job.packing!r}")


def check_fleet(
    job: Job,
    where: str,
    recipe_hash: str,
    devices: Sequence[str],
    reported: Mapping[str, str | None],
) -> None:
    """Raise ConfigError if nobody could train this job, or devices have another version of its recipe."""
    if not devices:
        raise ConfigError(
            f"{where}: population: no registered device matches; join devices or widen the filter"
        )
    if job.cohort.rule == "fixed" and (job.cohort.size or 0) > len(devices):
        raise ConfigError(
            f"{where}: cohort.size: expected at most the {len(devices)} registered devices, got {job.cohort.size}"
        )
    if job.cohort.quorum > len(devices):
        raise ConfigError(
            f"{where}: cohort.quorum: expected at most the {len(devices)} registered devices, got {job.cohort.quorum}"
        )
    _check_delta(job, where, len(devices))
    lacking = sorted(d for d, digest in reported.items() if digest is None)
    differing = sorted(d for d, digest in reported.items() if digest is not None and digest != recipe_hash)
    if lacking or differing:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
            for names, what in ((lacking, "lack it"), (differing, "have another version"))
            if names
        ]
        raise ConfigError(
            f"{where}: recipe: the server's {job.recipe!r} has code hash {recipe_hash[:12]}…; of the population "
            f"{' and '.join(parts)}; install the same release there, or narrow the population"
        )


def _check_finite(job: Job, where: str) -> None:
    """TOML has ``inf`` and ``nan``, JSON has neither: a stored job with one could never be read again."""
    for path in _not_finite(msgspec.to_builtins(job), ""):
        raise ConfigError(f"{where}: {path}: expected a finite number")


def _not_finite(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _not_finite(inner, f"{path}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield path


def _check_delta(job: Job, where: str, n_devices: int) -> None:
    """The unit of a central mode is a device: δ is the chance that one of ``n_devices`` may be exposed outright."""
    delta = job.privacy.delta
    if job.privacy.mode in CENTRAL_MODES and delta is not None and delta * 10 * n_devices > 1:
        raise ConfigError(
            f"{where}: privacy.delta: expected at most 1 / (10 · {n_devices} registered devices) = "
            f"{1 / (10 * n_devices):.3g}, got {delta:g}"
        )


def _check_privacy(job: Job, where: str) -> None:
    privacy = job.privacy
    if privacy.mode not in BUILT_MODES:
        raise ConfigError(
            f"{where}: privacy.mode: {privacy.mode!r} is not built yet; expected one of {', '.join(sorted(BUILT_MODES))}"
        )
    if privacy.mode == "none":
        for key in ("epsilon", "delta", "noise_multiplier"):
            if getattr(privacy, key) is not None:
                raise ConfigError(
                    f"{where}: privacy.{key}: mode 'none' gives no guarantee; leave it out, or choose mode 'example'"
                )
        return
    if privacy.mode in CENTRAL_MODES:
        check_central(privacy, job.cohort, where)
    else:
        _check_device_budget(privacy, where)
    if job.strategy.weighting == "samples":
        raise ConfigError(
            f"{where}: strategy.weighting: 'samples' would publish how many samples a device has; "
            f"expected 'uniform' with privacy.mode = {privacy.mode!r}"
        )


def _check_device_budget(privacy: PrivacySpec, where: str) -> None:
    for key in ("epsilon", "delta"):
        if getattr(privacy, key) is None:
            raise ConfigError(f"{where}: privacy.{key}: expected a number, mode {privacy.mode!r} needs one")
    if privacy.noise_multiplier is not None:
        raise ConfigError(
            f"{where}: privacy.noise_multiplier: in mode {privacy.mode!r} each device finds its own noise from epsilon; "
            "leave it out, or choose mode 'central-poisson'"
        )


def _check_cohort(job: Job, where: str) -> None:
    cohort = job.cohort
    if cohort.rule == "poisson" and job.privacy.mode != "central-poisson":
        raise ConfigError(
            f"{where}: cohort.rule: 'poisson' may draw nobody, and belongs to privacy.mode = 'central-poisson'; expected "
            f"'all' or 'fixed' with mode {job.privacy.mode!r}"
        )
    if cohort.rule != "poisson" and cohort.rate is not None:
        raise ConfigError(
            f"{where}: cohort.rate: is for rule 'poisson'; leave it out with rule {cohort.rule!r}"
        )
    if cohort.rule == "poisson" and cohort.size is not None:
        raise ConfigError(f"{where}: cohort.size: rule 'poisson' draws by cohort.rate; leave it out")
    if cohort.rule == "fixed" and cohort.size is None:
        raise ConfigError(f"{where}: cohort.size: expected a number, rule 'fixed' needs one")
    if cohort.rule == "all" and cohort.size is not None:
        raise ConfigError(
            f"{where}: cohort.size: rule 'all' draws everybody; leave it out, or use rule 'fixed'"
        )
    if cohort.size is not None and cohort.quorum > cohort.size:
        raise ConfigError(
            f"{where}: cohort.quorum: expected at most cohort.size ({cohort.size}), got {cohort.quorum}"
        )
