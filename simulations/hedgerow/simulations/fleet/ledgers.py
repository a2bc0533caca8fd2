"""What devices paid, from their own ledgers: read once their agents have ended, each verified from its first entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hedgerow.edge_agent.trainer.ledger import DeviceLedger
from hedgerow.shared.privacy.events import PrivacyEvent
from hedgerow.simulations.run.curve import curve
from hedgerow.simulations.run.ledger import Charge
from hedgerow.simulations.run.spending import Spending


class Spent(NamedTuple):
    """ε of one job. ``devices`` are an upper bound for each device (None: it never opened the job), the others of the device
    that paid most; ``noise_multiplier`` is the least that any device planned.
    """

    epsilon: float
    epsilon_rdp: float
    epsilon_replace: float
    noise_multiplier: float | None
    devices: tuple[float | None, ...]


def read_spent(ledgers: Sequence[Path], job_id: str, delta: float) -> Spent:
    """Return what ``job_id`` cost the devices whose ledgers these are, in their order; a ledger may be missing.

    Raises IntegrityError for one that was altered, StorageError for one that cannot be read.
    """
    spending, noise = Spending(len(ledgers)), []
    charged: list[tuple[PrivacyEvent, ...] | None] = []
    for device, path in enumerate(ledgers):
        found = _charged(path, job_id)
        charged.append(None if found is None else found[1])
        if found is not None:
            noise.append(found[0])
            spending.add(Charge(event, (device,)) for event in found[1])
    kinds = {
        events: curve(events, delta) if events else 0.0
        for events in {one for one in charged if one is not None}
    }
    return Spent(
        epsilon=spending.epsilon(delta),
        epsilon_rdp=spending.epsilon(delta, "rdp"),
        epsilon_replace=spending.epsilon(delta, "pld", "replace"),
        noise_multiplier=min(noise, default=None),
        devices=tuple(None if one is None else kinds[one] for one in charged),
    )


def _charged(path: Path, job_id: str) -> tuple[float, tuple[PrivacyEvent, ...]] | None:
    """Return a device's noise multiplier in the job and what it was charged; None if it never opened the job."""
    if not path.exists():
        return None
    ledger = DeviceLedger(path)
    try:
        account = ledger.state().jobs.get(job_id)
    finally:
        ledger.close()
    return None if account is None else (account.opened.noise_multiplier, account.charged())
