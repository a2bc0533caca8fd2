"""What is claimed of a job in a central mode, in words and figures."""

from __future__ import annotations

from typing import NamedTuple

from hedgerow.shared.bundle import PrivacyReport
from hedgerow.shared.privacy.accounting import epsilon
from hedgerow.shared.privacy.central import CentralPlan
from hedgerow.shared.privacy.events import GaussianRelease, PrivacyEvent

_NOTES = (
    "The guarantee is for whoever sees the models and this report. It does not hold against the server, which receives every "
    "device's update without noise, nor against anyone who learns who was drawn: operators who see cohorts, the fleet's "
    "traffic, or a device itself.",
    "Zero-out: a device's contribution becomes the zero vector, in all rounds, while the population and the denominator stay "
    "as they are. epsilon_replace is for one device's contributions replaced by any others.",
    "The population is frozen when the job begins. Devices that were offline, late, failed or refused count as zero; the "
    "number of updates that came decided nothing and is not told.",
    "Scores of the model are the server's, on the recipe's public set. Alarms, heartbeats, events, traffic and the time that "
    "rounds take lie outside epsilon.",
    "Noise is floating point: the guarantee is of the ideal Gaussian (Mironov 2012 describes the gap).",
)
_UNPROTECTED = (
    "Other jobs have released something of devices of this population without device-level privacy (mode 'none', or 'example', "
    "which protects single examples): this report bounds what central jobs added, not those."
)
_SIMULATED = "Simulated, no claim: noise and draws follow from the scenario's seed, which anybody may know."


class CentralRecord(NamedTuple):
    """What a report is made of: the plan, what the devices were charged before, whether anything had escaped before.

    ``simulated``: noise was keyed by a seed, so that nothing is claimed. ``ledger_head`` is the end of the ledger's hash chain.
    """

    plan: CentralPlan
    earlier: tuple[PrivacyEvent, ...] = ()
    earlier_unprotected: bool = False
    simulated: bool = False
    ledger_head: str = ""


def central_report(mode: str, record: CentralRecord) -> PrivacyReport:
    """Return the report of a job whose planned rounds are all released. Blocks on accounting for a second or so."""
    plan = record.plan
    notes: tuple[str, ...] = _NOTES
    if record.earlier_unprotected:
        notes = (_UNPROTECTED, *notes)
    if record.simulated:
        notes = (_SIMULATED, *notes)
    return PrivacyReport(
        mode=mode,
        unit="one device: all that it contributes to all rounds of the job",
        relation="zero-out of one device (replace-one in the figures)",
        sampling=_sampling(plan, simulated=record.simulated),
        epsilon=None if record.simulated else plan.epsilon,
        delta=None if record.simulated else plan.delta,
        accountant="PLD (dp-accounting), composed over rounds and earlier central jobs over the same devices",
        noise_source=_noise(plan, simulated=record.simulated),
        released=("model of each round",),
        withheld=(
            "losses", "metrics", "number of examples", "who was drawn", "number of updates", "updates of single devices"
        ),
        notes=notes,
        figures=_figures(record),
        ledger_head=record.ledger_head,
    )  # fmt: skip


def _sampling(plan: CentralPlan, *, simulated: bool) -> str:
    source = "the scenario's seed" if simulated else "the operating system's random numbers"
    return (
        f"Poisson: the server throws a coin of rate {plan.sampling_rate:g} for each of the {plan.population} registered "
        f"devices in each round, online or not, by {source}; the draw is written down before it is used, and never repeated"
    )


def _noise(plan: CentralPlan, *, simulated: bool) -> str:
    source = "keyed by the scenario's seed" if simulated else "keyed by the operating system"
    return (
        f"AES-256-CTR {source}: N(0, ({plan.noise_multiplier:.4g} · {plan.clip_norm_l2:g})²) on the sum of updates that the "
        f"server holds to an L2 norm of {plan.clip_norm_l2:g}, divided by the constant {plan.denominator:g}"
    )


def _figures(record: CentralRecord) -> dict[str, float]:
    """Return the plan and ε of all that the devices were charged, by each accountant and relation that can tell."""
    plan = record.plan
    charged = (*record.earlier, *plan.events())
    figures = {
        "population": float(plan.population),
        "sampling_rate": plan.sampling_rate,
        "rounds": float(plan.rounds),
        "noise_multiplier": plan.noise_multiplier,
        "clip_norm_l2": plan.clip_norm_l2,
        "delta": plan.delta,
        "epsilon_pld": plan.epsilon,
        "epsilon_this_job": plan.epsilon_after(plan.rounds),
        "epsilon_rdp": epsilon(charged, plan.delta, "rdp"),
        "epsilon_replace": epsilon(charged, plan.delta, "pld", "replace", coarse=True),
    }
    unsampled = (*record.earlier, GaussianRelease(plan.noise_multiplier, plan.rounds))
    figures["epsilon_no_amplification"] = epsilon(unsampled, plan.delta, coarse=True)
    return figures
