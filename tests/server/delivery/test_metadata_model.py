"""Signed metadata over any order of publishing, taking back and giving leave, beside a plain dictionary."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp

from hedgerow.server.delivery.metadata import (
    TargetEntry,
    custom_of,
    first_root,
    next_snapshot,
    next_timestamp,
    renewed,
    verified,
    with_rollback_allowed,
    with_targets,
    without_bundle,
)
from hedgerow.server.delivery.paths import bundle_prefix, disk_path, is_target_path
from hedgerow.shared.errors import ContentError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Bundle = tuple[str, int]
BUNDLES = st.tuples(st.sampled_from(["pump", "fan"]), st.sampled_from([1, 2, 11]))
STEPS = st.lists(st.tuples(st.sampled_from(["publish", "yank", "allow"]), BUNDLES), max_size=12)
FILES = ("manifest.json", "model.onnx")


def names_of(model: str, version: int) -> list[str]:
    return [bundle_prefix(model, version) + name for name in FILES]


def entries_of(model: str, version: int) -> list[TargetEntry]:
    return [
        TargetEntry(name, len(name), hashlib.sha256(name.encode()).hexdigest(), {"version": version})
        for name in names_of(model, version)
    ]


@given(STEPS)
def test_what_is_signed_is_what_was_published_and_not_taken_back(steps: list[Any]) -> None:
    targets = Targets()
    model: dict[str, Bundle] = {}
    allowed: set[Bundle] = set()
    for at, (step, bundle) in enumerate(steps):
        before, moment = deepcopy(targets), NOW + timedelta(minutes=at)
        after: Targets | None = None
        if step == "publish":
            after = with_targets(targets, entries_of(*bundle), moment)
            model |= dict.fromkeys(names_of(*bundle), bundle)
        elif step == "yank":
            after = without_bundle(targets, bundle[0], bundle[1], moment)
            model = {name: owner for name, owner in model.items() if owner != bundle}
            allowed.discard(bundle)
        elif bundle in model.values():
            after = with_rollback_allowed(targets, bundle[0], bundle[1], moment)
            allowed.add(bundle)
        else:
            with pytest.raises(ContentError, match="not published"):
                with_rollback_allowed(targets, bundle[0], bundle[1], moment)
        assert targets == before, "values are never changed in place"
        if after is not None:
            assert after.version == targets.version + 1
            assert after.expires == (moment + timedelta(days=365)).replace(microsecond=0)
            targets = after
        assert set(targets.targets) == set(model)
        leave = {model[name] for name, file in targets.targets.items() if custom_of(file).get("rollback_ok")}
        assert leave == allowed
    for name, file in targets.targets.items():
        assert file.hashes == {"sha256": hashlib.sha256(name.encode()).hexdigest()}


@given(STEPS)
def test_a_step_that_changes_nothing_signs_nothing(steps: list[Any]) -> None:
    """The same step again right after itself: no new version, so that devices fetch nothing for it."""
    targets = Targets()
    for step, bundle in steps:
        for again in (False, True):
            if step == "publish":
                after = with_targets(targets, entries_of(*bundle), NOW)
            elif step == "yank":
                after = without_bundle(targets, bundle[0], bundle[1], NOW)
            elif any(name.startswith(bundle_prefix(*bundle)) for name in targets.targets):
                after = with_rollback_allowed(targets, bundle[0], bundle[1], NOW)
            else:
                continue
            assert not (again and after is not None)
            targets = after or targets


@pytest.mark.parametrize("change", [{"length": 11}, {"sha256": "0" * 64}])
def test_a_name_is_never_published_with_other_bytes_not_even_beside_new_names(change: dict[str, Any]) -> None:
    targets = with_targets(Targets(), entries_of("pump", 1), NOW)
    assert targets is not None
    one = entries_of("pump", 1)[0]
    fields: dict[str, Any] = {name: getattr(one, name) for name in one.__struct_fields__}

    with pytest.raises(ContentError, match=r"published with other bytes; use a new version"):
        with_targets(targets, [*entries_of("pump", 2), TargetEntry(**(fields | change))], NOW)

    assert set(targets.targets) == set(names_of("pump", 1))


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_snapshot_and_a_timestamp_fit_one_content_alone(content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content) - 1))
    other = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    snapshot = next_snapshot(Snapshot(), 7, content, NOW)
    timestamp = next_timestamp(Timestamp(), snapshot.version, content, NOW)

    for described in (snapshot.meta["targets.json"], timestamp.snapshot_meta):
        described.verify_length_and_hashes(content)
        with pytest.raises(RepositoryError):
            described.verify_length_and_hashes(other)
        with pytest.raises(RepositoryError):
            described.verify_length_and_hashes(content + b" ")
    assert snapshot.meta["targets.json"].version == 7
    assert timestamp.snapshot_meta.version == snapshot.version


@pytest.mark.parametrize(
    ("role", "signed", "days"),
    [("timestamp", Timestamp(), 1), ("snapshot", Snapshot(), 7), ("targets", Targets(), 365)],
)
def test_renewing_changes_nothing_but_version_and_time(role: str, signed: Any, days: int) -> None:
    before = deepcopy(signed)
    fresh = renewed(signed, role, NOW)

    assert signed == before
    assert (fresh.version, fresh.expires) == (before.version + 1, NOW + timedelta(days=days))
    fresh.version, fresh.expires = before.version, before.expires
    assert fresh == before


def signed_by(signer: CryptoSigner, signed: Any) -> bytes:
    metadata: Metadata[Any] = Metadata(signed)
    metadata.sign(signer)
    return metadata.to_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_metadata_with_any_byte_changed_does_not_verify_or_says_the_same(data: st.DataObject) -> None:
    content = bytearray(SIGNED)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = verified(bytes(content), "timestamp", ROOT)
    except RepositoryError:
        return
    assert found.signed == verified(SIGNED, "timestamp", ROOT).signed


@pytest.mark.parametrize("role", ["root", "targets", "snapshot"])
def test_a_signature_is_good_for_its_role_alone(role: str) -> None:
    with pytest.raises(RepositoryError):
        verified(SIGNED, role, ROOT)


def test_the_signature_of_a_stranger_is_none() -> None:
    with pytest.raises(RepositoryError):
        verified(signed_by(CryptoSigner.generate_ed25519(), Timestamp()), "timestamp", ROOT)


@given(st.sampled_from(["pump", "a-b", "0"]), st.integers(1, 999_999_999), st.sampled_from(FILES))
def test_every_published_name_lies_where_devices_may_fetch_it(model: str, version: int, name: str) -> None:
    target = bundle_prefix(model, version) + name

    assert is_target_path(disk_path(target, "a" * 64))
    assert not is_target_path(target), "without its hash nothing is served"


def root_with(signer: CryptoSigner) -> Any:
    root = first_root(NOW)
    root.add_key(signer.public_key, "timestamp")
    return root


SIGNER = CryptoSigner.generate_ed25519()
ROOT = root_with(SIGNER)
SIGNED = signed_by(SIGNER, next_timestamp(Timestamp(), 3, b"snapshot", NOW))
