"""The small records beside a bundle: what was installed in a slot, and the newest version that ever served."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from hedgerow.shared.bundle import Sha256
from hedgerow.shared.errors import ContentError
from hedgerow.shared.unreadable import UNREADABLE

MAX_RECORD_BYTES = 64 * 1024
T = TypeVar("T", bound=msgspec.Struct)


class InstalledFile(msgspec.Struct, frozen=True):
    """One file of a slot as it was when it was installed."""

    size_bytes: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class Installed(msgspec.Struct, frozen=True):
    """What a slot holds, written last when its files are complete and verified."""

    model: str
    version: int
    manifest_sha256: Sha256
    files: Annotated[dict[str, InstalledFile], Meta(max_length=65)]


class Confirmed(msgspec.Struct, frozen=True):
    """The newest version that served on this device; older ones are refused unless going back is allowed."""

    version: int
    manifest_sha256: Sha256


# Made at import: two threads that meet a Struct for the first time at once crash msgspec while it reads the type.
_DECODERS = tuple(msgspec.json.Decoder(kind) for kind in (Installed, Confirmed))


def encode_record(record: msgspec.Struct) -> bytes:
    """Return the record's bytes (JSON)."""
    return msgspec.json.encode(record, order="sorted")


def decode_record(data: bytes, kind: type[T]) -> T:
    """Return the record in ``data``. Raises ContentError if it is not one."""
    if len(data) > MAX_RECORD_BYTES:
        raise ContentError(f"record of more than {MAX_RECORD_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise ContentError(f"not a record of {kind.__name__}: {error}") from error
