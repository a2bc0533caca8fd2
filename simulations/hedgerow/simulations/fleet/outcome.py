"""What a run on a fleet left in its server's folder, read once the server has ended, as a result like any other's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import select

from hedgerow.server.app.home import ServerHome
from hedgerow.server.jobs.records import JobRecord
from hedgerow.server.jobs.records import RoundRecord as ServerRound
from hedgerow.server.jobs.store import JobStore
from hedgerow.server.ledger.accounts import PrivacyLedger
from hedgerow.server.rounds.models import ModelStore
from hedgerow.server.rounds.store import RoundStore
from hedgerow.server.rounds.tables import ContributionRow
from hedgerow.server.store.blobs import Blobs
from hedgerow.server.store.database import Database
from hedgerow.shared.job import CENTRAL_MODES
from hedgerow.shared.packing import Vector
from hedgerow.shared.privacy.central_report import CentralRecord
from hedgerow.shared.privacy.report import privacy_report
from hedgerow.simulations.fleet.ledgers import Spent
from hedgerow.simulations.run.records import WITHHELD, DeviceRecord, PrivacySummary, RoundRecord

CLAIM: Final = "as this fleet charged it, over simulated data"


class Part(NamedTuple):
    """A device's part in a round."""

    round: int
    device: str
    outcome: str
    n_bytes: int


class Left(NamedTuple):
    """The server's own record of a job: everything, also what its views withhold."""

    job: JobRecord
    rounds: Sequence[ServerRound]
    parts: Sequence[Part]
    model: Vector
    central: CentralRecord | None


def read_left(home: ServerHome, job_id: str) -> Left:
    """Return what a server that has ended left of a job. Raises StorageError if its folder is damaged."""
    database = Database(home.database_url(home.read_config()))
    try:
        jobs = JobStore(database)
        job = jobs.get(job_id)
        if job is None:
            raise LookupError(job_id)
        model = RoundStore(database, ModelStore(Blobs(home.blobs / "rounds"))).load(job_id).model
        rounds = jobs.rounds(job_id)
        central = PrivacyLedger(database).record(job_id) if job.job.privacy.mode in CENTRAL_MODES else None
        return Left(job, rounds, _parts(database, job_id), model, central)
    finally:
        database.close()


def round_record(one: Mapping[str, Any], events: Sequence[str], elapsed_s: float) -> RoundRecord:
    """Return a round of the server, a view or a record as a mapping; ``elapsed_s`` since the first one began.

    Counts that a view withholds are 0, and an event says so.
    """
    if one["drawn"] is None:
        events = (*events, WITHHELD)
    return RoundRecord(
        round=one["round"],
        drawn=one["drawn"] or 0,
        counted=one["replied"] or 0,
        rejected=dict(one["reasons"]),
        dropped=one["dropped"] or 0,
        loss=one.get("metrics", {}).get("loss"),
        scores=dict(one["scores"]),
        epsilon=one["epsilon"],
        bytes_up=one["bytes_up"] or 0,
        bytes_down=one["bytes_down"] or 0,
        simulated_s=elapsed_s,
        wall_s=one["duration_s"],
        events=tuple(events),
    )


def round_records(left: Left, events: Mapping[int, Sequence[str]]) -> tuple[RoundRecord, ...]:
    """Return all rounds with what was done to the fleet in them."""
    found: list[RoundRecord] = []
    elapsed_s = 0.0
    for one in left.rounds:
        elapsed_s += one.duration_s
        happened = list(events.get(one.round, ()))
        if one.attempt > 1:
            happened.append(f"committed at attempt {one.attempt}")
        found.append(round_record(msgspec.structs.asdict(one), happened, elapsed_s))
    return tuple(found)


def device_records(
    left: Left,
    names: Sequence[str],
    classes: Sequence[str],
    n_samples: Sequence[int],
    spent: Spent | None = None,
) -> tuple[DeviceRecord, ...]:
    """Return one record a device, without scores. Time of training is the device's own affair and stays 0."""
    counted = Counter(part.device for part in left.parts if part.outcome == "counted")
    up: Counter[str] = Counter()
    down: Counter[str] = Counter()
    for part in left.parts:
        up[part.device] += part.n_bytes
        # As the server counts: the model's bytes for each device that answered.
        down[part.device] += 4 * left.model.size if part.n_bytes else 0
    return tuple(
        DeviceRecord(
            device=number,
            device_class=classes[number],
            group="all",
            n_samples=n_samples[number],
            rounds=counted[name],
            bytes_up=up[name],
            bytes_down=down[name],
            train_s=0.0,
            epsilon=None if spent is None else spent.devices[number],
        )
        for number, name in enumerate(names)
    )


def privacy_of(left: Left, spent: Spent | None = None) -> PrivacySummary:
    """Return what the fleet states: its noise is real, only its data are not.

    ε is what ledgers add up to: the server's own in central modes, ``spent``, the devices', in mode ``example``.
    """
    job = left.job.job
    report = privacy_report(job.privacy, left.central)
    private, notes = job.privacy.mode != "none", report.notes
    central_noise = left.central.plan.noise_multiplier if left.central is not None else None
    if spent is not None:
        heard = "nothing" if left.job.epsilon is None else f"{left.job.epsilon:.4g}"
        notes = (f"ε is of the devices' own ledgers; the server heard {heard} with their updates.", *notes)
    return PrivacySummary(
        mode=job.privacy.mode,
        claim=CLAIM if private else "none",
        unit=report.unit,
        relation=report.relation,
        epsilon=left.job.epsilon if spent is None else spent.epsilon,
        epsilon_rdp=report.figures.get("epsilon_rdp") if spent is None else spent.epsilon_rdp,
        epsilon_replace=report.figures.get("epsilon_replace") if spent is None else spent.epsilon_replace,
        delta=job.privacy.delta if private else None,
        noise_multiplier=central_noise if spent is None else spent.noise_multiplier,
        sampling=report.sampling,
        notes=notes,
        report=msgspec.to_builtins(report),
    )


def _parts(database: Database, job_id: str) -> list[Part]:
    columns = select(
        ContributionRow.round,
        ContributionRow.device,
        ContributionRow.outcome,
        ContributionRow.n_bytes,
    ).where(ContributionRow.job_id == job_id)
    with database.transaction() as session:
        return [Part(*row) for row in session.execute(columns).all()]
