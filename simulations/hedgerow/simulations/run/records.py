"""What a run leaves: one record a round, and the result; written as JSON, read back by ``compare`` and by notebooks."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

NO_SCORE = "judged, without a finite score"
"""The event of a round whose model fell apart."""


WITHHELD = "devices and bytes are withheld until the end"
"""The event of a round whose counts a private job does not show while it runs (engine ``fleet``)."""


class RoundRecord(msgspec.Struct, frozen=True):
    """One round (one release). Times are seconds, ``simulated_s`` since the run's simulated begin, ``wall_s`` this round's own.

    ``epsilon`` is what is spent so far (the largest over devices in mode ``example``). ``bytes_up`` and ``bytes_down`` are of
    this round over all devices. ``energy_j`` is the proxy of the device classes. ``loss`` is the mean over devices that
    trained, weighted as their updates. ``scores`` are the recipe's on the held-out set; ``device_*`` describe scores
    over devices (mean, and the quantiles 10, 50, 90 %); ``cohorts`` maps a cohort to its mean score. ``events`` says in words what
    went wrong. ``staleness`` is the mean number of versions behind, in asynchronous runs.
    """

    round: int
    drawn: int
    counted: int
    rejected: dict[str, int] = {}
    dropped: int = 0
    loss: float | None = None
    update_norm_l2: float | None = None
    scores: dict[str, float] = {}
    device_mean: float | None = None
    device_quantiles: tuple[float, float, float] | None = None
    cohorts: dict[str, float] = {}
    epsilon: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    simulated_s: float = 0.0
    energy_j: float = 0.0
    wall_s: float = 0.0
    staleness: float | None = None
    events: tuple[str, ...] = ()


class PrivacySummary(msgspec.Struct, frozen=True):
    """What would be claimed of a fleet, and that nothing is claimed here: noise keyed by a seed protects nobody.

    ``claim`` is ``simulated, no claim`` wherever noise or sampling came from the scenario's seed. ``epsilon`` is by PLD,
    ``epsilon_rdp`` by RDP, ``epsilon_replace`` under replace-one where it can be computed. ``report`` is the fleet's own.
    """

    mode: str
    claim: str
    unit: str
    relation: str
    epsilon: float | None
    epsilon_rdp: float | None
    epsilon_replace: float | None
    delta: float | None
    noise_multiplier: float | None
    sampling: str
    notes: tuple[str, ...] = ()
    report: dict[str, Any] = {}


class DeviceRecord(msgspec.Struct, frozen=True):
    """One device at the end of a run: what it is, what it did, and how the last model does on its held-out examples.

    ``epsilon`` is what its own ledger says that it paid (engine ``fleet`` with mode ``example``).
    """

    device: int
    device_class: str
    group: str
    n_samples: int
    rounds: int
    bytes_up: int
    bytes_down: int
    train_s: float
    score: float | None = None
    loss: float | None = None
    epsilon: float | None = None


class Result(msgspec.Struct, frozen=True):
    """A finished (or interrupted) run. ``model_sha256`` is of the final float32 model, little endian.

    ``choices`` are the engine's (kernel, group size, workers), ``versions`` of Python, torch, numpy and this project.
    ``trial`` names a run of a sweep. ``noise_seed`` keyed noise and private draws; None without privacy, or where the operating
    system keyed them (engine ``fleet``).
    """

    name: str
    engine: str
    state: Literal["finished", "interrupted"]
    scenario: dict[str, Any]
    scenario_sha256: str
    seed: int
    recipe: str
    recipe_hash: str
    n_parameters: int
    devices: int
    metric: str
    higher_is_better: bool
    rounds: tuple[RoundRecord, ...]
    privacy: PrivacySummary
    model_sha256: str
    initial_scores: dict[str, float] = {}
    device_records: tuple[DeviceRecord, ...] = ()
    choices: dict[str, str] = {}
    versions: dict[str, str] = {}
    started_at: str = ""
    start_s: float = 0.0
    first_round_s: float = 0.0
    wall_s: float = 0.0
    folder: str = ""
    trial: str = ""
    noise_seed: int | None = None

    @property
    def score(self) -> float | None:
        """Return the last central score of the recipe's metric; None if the model last judged had no finite one."""
        for record in reversed(self.rounds):
            if self.metric in record.scores:
                return record.scores[self.metric]
            if NO_SCORE in record.events:
                return None
        return None

    def records(self) -> list[dict[str, Any]]:
        """Return the rounds as flat dictionaries, one a round, ready for ``pandas.DataFrame``."""
        return [_flat(record) for record in self.rounds]


def _flat(record: RoundRecord) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(record)
    for name in ("scores", "rejected", "cohorts"):
        values = plain.pop(name)
        plain |= {f"{name}.{key}": value for key, value in values.items()}
    quantiles = plain.pop("device_quantiles")
    if quantiles is not None:
        plain |= dict(zip(("device_p10", "device_p50", "device_p90"), quantiles, strict=True))
    plain["events"] = "; ".join(plain["events"])
    return plain
