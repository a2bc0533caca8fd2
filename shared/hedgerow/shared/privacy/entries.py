"""The entries of a device's privacy ledger and the hash chain that holds them together.

An entry's hash covers its number, the hash before it, a random salt and its body. The salt matters: the head of the
chain is told to the server, and without it the few numbers of an entry (how many examples, say) could be guessed
until the hash fits. A head commits to everything before it, and tells nothing.
"""

from __future__ import annotations

import hashlib
import os
from typing import Annotated

import msgspec
from msgspec import Meta

from hedgerow.shared.errors import IntegrityError
from hedgerow.shared.unreadable import UNREADABLE

SALT_BYTES = 32
GENESIS = bytes(32)
MAX_ENTRY_BYTES = 16_384
_DOMAIN = b"hedgerow-ledger-1\0"

JobId = Annotated[str, Meta(min_length=1, max_length=128)]
Count = Annotated[int, Meta(ge=0)]
OneOrMore = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]


class SampleRange(msgspec.Struct, frozen=True):
    """Samples of one spec with ids in ``(after_id, up_to_id]``: those that a job may touch, fixed at its first round."""

    spec: str
    after_id: Count
    up_to_id: Count

    def apart_from(self, earlier: SampleRange) -> bool:
        """Return whether no sample of this range was in the ``earlier`` one.

        Ids only grow, so a range that starts after the other ended is apart. Lower ids prove nothing: a store that
        was lost and filled again counts from one, and may hold the same readings.
        """
        return self.spec != earlier.spec or self.after_id >= earlier.up_to_id


class JobOpened(msgspec.Struct, frozen=True, tag="job-opened"):
    """A job with privacy begins on this device: its plan, made once and kept.

    ``request`` is the digest of what the server asked (recipe, parameters, privacy, training, rounds), so that a
    later round cannot ask for something else. ``n`` is the number of examples. ``earlier_unprotected`` tells that
    a job without privacy has used some of these samples before.
    """

    job_id: JobId
    request: str
    samples: SampleRange
    n: OneOrMore
    epsilon: Positive
    delta: Positive
    clip_norm_l2: Positive
    sampling_rate: Annotated[float, Meta(gt=0, le=1)]
    noise_multiplier: Positive
    steps_per_round: OneOrMore
    rounds: OneOrMore
    earlier_unprotected: bool = False


class Reserved(msgspec.Struct, frozen=True, tag="reserved"):
    """Steps of one exchange are charged; written before any noise of that exchange is drawn."""

    job_id: JobId
    round: Count
    exchange: Count
    steps: OneOrMore


class Released(msgspec.Struct, frozen=True, tag="released"):
    """The update of a reserved exchange is stored and may leave; ``request`` is the digest of its instruction."""

    job_id: JobId
    round: Count
    exchange: Count
    request: str
    update_sha256: str


class JobClosed(msgspec.Struct, frozen=True, tag="job-closed"):
    """The job will charge nothing more: what it had planned and not reserved is free again."""

    job_id: JobId


class Unprotected(msgspec.Struct, frozen=True, tag="unprotected", omit_defaults=True):
    """A job begins on these samples whose updates leave without noise: their ε is infinite from here on.

    ``protected_by`` is the mode in which the *server* adds noise before it publishes anything, and keeps a ledger of its
    own; empty where nobody does. Against the server the samples are unprotected either way, and that is what this ledger
    says.
    """

    job_id: JobId
    samples: SampleRange
    protected_by: Annotated[str, Meta(max_length=64)] = ""


Body = JobOpened | Reserved | Released | JobClosed | Unprotected


_BODIES: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)


class Entry(msgspec.Struct, frozen=True):
    """One line of the ledger. ``at_us`` is the device's clock, in microseconds since 1970, for people only."""

    sequence: int
    previous: bytes
    salt: bytes
    at_us: int
    raw: bytes
    hash: bytes

    @property
    def body(self) -> Body:
        """Return what the entry says. Raises IntegrityError if it says nothing that is known."""
        try:
            return _BODIES.decode(self.raw)
        except UNREADABLE as error:
            raise IntegrityError(f"ledger entry {self.sequence} cannot be read: {error}") from error


def new_entry(sequence: int, previous: bytes, body: Body, at_us: int) -> Entry:
    """Return the next entry of a chain, with a fresh salt from the operating system."""
    raw, salt = msgspec.json.encode(body), os.urandom(SALT_BYTES)
    return Entry(sequence, previous, salt, at_us, raw, entry_hash(sequence, previous, salt, at_us, raw))


def entry_hash(sequence: int, previous: bytes, salt: bytes, at_us: int, raw: bytes) -> bytes:
    """Return SHA-256 over a domain tag and all fields; the lengths before the body are fixed."""
    fixed = sequence.to_bytes(8, "big") + previous + salt + at_us.to_bytes(8, "big", signed=True)
    return hashlib.sha256(_DOMAIN + fixed + raw).digest()


def check_entry(entry: Entry, sequence: int, previous: bytes) -> None:
    """Raise IntegrityError unless ``entry`` is number ``sequence`` after the hash ``previous``, unaltered."""
    sound = (
        all(isinstance(field, bytes) for field in (entry.previous, entry.salt, entry.raw, entry.hash))
        and entry.sequence == sequence
        and entry.previous == previous
        and len(entry.salt) == SALT_BYTES
        and len(entry.raw) <= MAX_ENTRY_BYTES
        and entry.hash == entry_hash(entry.sequence, entry.previous, entry.salt, entry.at_us, entry.raw)
    )
    if not sound:
        raise IntegrityError(f"the privacy ledger is damaged or altered at entry {sequence}")
