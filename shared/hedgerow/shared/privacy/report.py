"""The privacy report of a job: what is claimed of the training, in what unit, and how it is enforced."""

from __future__ import annotations

from hedgerow.shared.bundle import PrivacyReport
from hedgerow.shared.errors import UnsupportedError
from hedgerow.shared.job import PrivacySpec
from hedgerow.shared.privacy.central_report import CentralRecord, central_report

_EXAMPLE_NOTES = (
    "Population statement: the maximum over devices, never a sum; each example lives on one device.",
    "ε is the bound asked for. With each update a device states what it has spent by then: a function of the job, of how "
    "many of its rounds the device has charged, and of the plans of this and earlier jobs on the same samples, hence of "
    "the rounded number of examples and of nothing else about them.",
    "The guarantee is of single samples (overlapping windows are samples of their own), not of a whole device.",
    "Sampling rate, steps and noise depend on the number of examples rounded down to a power of √2, or on the job's "
    "nominal_samples; that rounded number counts as public, with what follows from it (ε by round).",
    "Alarms, heartbeats and events, the time that training takes, and whether a device declines a job (δ above "
    "1 / (10 n), budget spent, no samples) lie outside ε.",
    "Noise is floating point: the guarantee is of the ideal Gaussian (Mironov 2012 describes the gap).",
)


def privacy_report(privacy: PrivacySpec, central: CentralRecord | None = None) -> PrivacyReport:
    """Return the report of a job with this privacy block; ``central`` is its account's record in a central mode.

    Raises UnsupportedError for a mode that is not built, ValueError for a central mode without a record.
    """
    if privacy.mode == "none":
        return _none_report()
    if privacy.mode == "example":
        return _example_report(privacy)
    if privacy.mode == "central-poisson":
        if central is None:
            raise ValueError(f"mode {privacy.mode!r} is reported from its account in the privacy ledger")
        return central_report(privacy.mode, central)
    raise UnsupportedError(f"privacy mode {privacy.mode!r} is not built")


def _example_report(privacy: PrivacySpec) -> PrivacyReport:
    if privacy.epsilon is None or privacy.delta is None:
        raise ValueError("mode 'example' needs epsilon and delta")
    return PrivacyReport(
        mode="example",
        unit="one example (one stored sample) of one device",
        relation="add or remove one example",
        sampling=(
            "Poisson, drawn on the device each step by the operating system's random numbers; the server neither "
            "chooses nor sees who is drawn"
        ),
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        accountant="PLD (dp-accounting), composed over steps, rounds and earlier jobs on the same samples",
        noise_source=f"AES-256-CTR keyed by the operating system, on the sum of gradients clipped to L2 norm "
        f"{privacy.clip_norm_l2:g}; no seed reaches noise or sampling",
        released=("model update of each round",),
        withheld=("losses", "metrics", "number of examples", "noise multiplier"),
        notes=_EXAMPLE_NOTES,
    )


def _none_report() -> PrivacyReport:
    return PrivacyReport(
        mode="none",
        unit="none",
        relation="none",
        sampling="none",
        epsilon=None,
        delta=None,
        accountant="none",
        noise_source="none",
        released=("model update of each round", "losses", "number of examples"),
        withheld=(),
        notes=(
            "No differential privacy: ε is infinite. Updates can reveal the examples they were made from.",
        ),
    )
