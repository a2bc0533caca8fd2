"""A run's state as one file, replaced as a whole: a crash leaves the old one or the new one, never a part."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from hedgerow.server.rounds.models import model_bytes
from hedgerow.shared.errors import ConfigError, IntegrityError, StorageError
from hedgerow.shared.files import write_atomically
from hedgerow.shared.unreadable import UNREADABLE
from hedgerow.simulations.run.flight import Flight
from hedgerow.simulations.run.records import RoundRecord
from hedgerow.simulations.run.state import State, Totals

FILE_NAME = "checkpoint"
_VERSION = 2
_DIGEST_BYTES = 32


class Checkpoint(msgspec.Struct, frozen=True):
    """The file, after the SHA-256 of it all. ``scenario_sha256`` says which scenario it belongs to; ``choices`` are the engine's, replayed on resume.

    Vectors are little endian: ``model`` float32, ``totals`` three int64 and one float64 array one after the other.
    """

    version: int
    scenario_sha256: str
    engine: str
    choices: dict[str, str]
    round: int
    model: bytes
    rule: bytes
    mechanism: bytes
    totals: bytes
    simulated_s: float
    wall_s: float
    records: tuple[RoundRecord, ...]
    initial_scores: dict[str, float]
    flight: Flight | None
    started_at: str


def write_checkpoint(
    folder: Path, state: State, scenario_sha256: str, engine: str, choices: dict[str, str], started_at: str
) -> None:
    """Write the checkpoint of ``folder``. Raises StorageError naming the path; the one before is then still there."""
    totals = state.totals
    arrays = (totals.rounds, totals.bytes_up, totals.bytes_down)
    checkpoint = Checkpoint(
        version=_VERSION,
        scenario_sha256=scenario_sha256,
        engine=engine,
        choices=choices,
        round=state.round,
        # Encoded from where it lies: as bytes it would be copied first.
        model=cast("bytes", model_bytes(state.model)),
        rule=state.rule,
        mechanism=state.mechanism,
        totals=b"".join(a.astype("<i8").tobytes() for a in arrays) + totals.train_s.astype("<f8").tobytes(),
        simulated_s=state.simulated_s,
        wall_s=state.wall_s,
        records=tuple(state.records),
        initial_scores=state.initial_scores,
        flight=state.flight,
        started_at=started_at,
    )
    data = bytearray(_DIGEST_BYTES)
    msgspec.msgpack.Encoder().encode_into(checkpoint, data, _DIGEST_BYTES)
    data[:_DIGEST_BYTES] = hashlib.sha256(memoryview(data)[_DIGEST_BYTES:]).digest()
    write_atomically(folder / FILE_NAME, data)


def read_checkpoint(folder: Path, scenario_sha256: str, engine: str) -> Checkpoint:
    """Return the checkpoint of ``folder``.

    Raises StorageError if there is none, IntegrityError if it is damaged, ConfigError if it is of another scenario or engine.
    """
    path = folder / FILE_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: no checkpoint to resume from: {error.strerror}") from error
    digest, data = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        raise IntegrityError(f"{path}: damaged, or of another release; start again with another --folder")
    try:
        found = msgspec.msgpack.decode(data, type=Checkpoint)
    except UNREADABLE as error:
        raise IntegrityError(
            f"{path}: of another release: {error}; start again with another --folder"
        ) from error
    if found.version != _VERSION:
        raise IntegrityError(
            f"{path}: of another release (version {found.version}, here {_VERSION}); start again with another --folder"
        )
    if found.scenario_sha256 != scenario_sha256:
        raise ConfigError(
            f"{path}: belongs to another scenario, or to this one before it was changed; give the same one, or another "
            "--folder"
        )
    if found.engine != engine:
        raise ConfigError(
            f"{path}: was made by engine {found.engine!r}, not {engine!r}; resume with that one"
        )
    return found


def state_of(checkpoint: Checkpoint, devices: int) -> State:
    """Return the state in a checkpoint. Raises IntegrityError if its arrays are not of so many devices."""
    if len(checkpoint.totals) != 32 * devices:
        raise IntegrityError(f"the checkpoint is of another number of devices than {devices}")
    cut = 24 * devices
    counts = np.frombuffer(checkpoint.totals[:cut], "<i8").astype(np.int64).reshape(3, devices)
    totals = Totals(
        counts[0].copy(),
        counts[1].copy(),
        counts[2].copy(),
        np.frombuffer(checkpoint.totals[cut:], "<f8").astype(np.float64),
    )
    return State(
        model=np.frombuffer(checkpoint.model, "<f4").astype(np.float32),
        rule=checkpoint.rule,
        mechanism=checkpoint.mechanism,
        totals=totals,
        round=checkpoint.round,
        simulated_s=checkpoint.simulated_s,
        wall_s=checkpoint.wall_s,
        records=list(checkpoint.records),
        initial_scores=checkpoint.initial_scores,
        flight=checkpoint.flight,
    )
