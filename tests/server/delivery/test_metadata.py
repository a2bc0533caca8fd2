"""The next metadata from the present one: versions grow, published names never change their bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Snapshot, Targets, Timestamp

from hedgerow.server.delivery.metadata import (
    TargetEntry,
    custom_of,
    next_snapshot,
    next_timestamp,
    with_rollback_allowed,
    with_targets,
    without_bundle,
)
from hedgerow.shared.errors import ContentError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def entry(name: str, byte: str = "a") -> TargetEntry:
    return TargetEntry(name, 10, byte * 64, {"version": 1, "manifest_sha256": "b" * 64})


def published() -> Targets:
    made = with_targets(Targets(), [entry("bundles/pump/1/m"), entry("bundles/pump/11/m")], NOW)
    assert made is not None
    return made


def test_added_targets_carry_what_is_signed_beside_them() -> None:
    targets = published()

    assert targets.version == 2
    assert custom_of(targets.targets["bundles/pump/1/m"]) == {"version": 1, "manifest_sha256": "b" * 64}
    assert targets.expires == NOW + timedelta(days=365)


def test_the_same_targets_again_need_no_new_version() -> None:
    assert with_targets(published(), [entry("bundles/pump/1/m")], NOW) is None


def test_a_published_name_never_gets_other_bytes() -> None:
    with pytest.raises(ContentError, match="use a new version"):
        with_targets(published(), [entry("bundles/pump/1/m", "c")], NOW)


def test_taking_a_bundle_back_leaves_versions_whose_number_begins_alike() -> None:
    left = without_bundle(published(), "pump", 1, NOW)

    assert left is not None
    assert list(left.targets) == ["bundles/pump/11/m"]
    assert left.version == 3


def test_taking_back_what_is_not_there_needs_no_new_version() -> None:
    assert without_bundle(published(), "pump", 2, NOW) is None


def test_a_leave_to_go_back_is_signed_for_one_bundle_only() -> None:
    allowed = with_rollback_allowed(published(), "pump", 1, NOW)

    assert allowed is not None
    assert custom_of(allowed.targets["bundles/pump/1/m"])["rollback_ok"] is True
    assert "rollback_ok" not in custom_of(allowed.targets["bundles/pump/11/m"])
    assert with_rollback_allowed(allowed, "pump", 1, NOW) is None


def test_nobody_may_go_back_to_what_is_not_published() -> None:
    with pytest.raises(ContentError, match="not published"):
        with_rollback_allowed(published(), "pump", 2, NOW)


def test_the_present_values_are_never_changed_in_place() -> None:
    before = published()
    copy = before.to_dict()
    with_rollback_allowed(before, "pump", 1, NOW)
    without_bundle(before, "pump", 1, NOW)
    with_targets(before, [entry("bundles/pump/2/m")], NOW)

    assert before.to_dict() == copy


def test_snapshot_and_timestamp_name_the_exact_bytes_below_them() -> None:
    snapshot = next_snapshot(Snapshot(), 7, b"targets", NOW)
    timestamp = next_timestamp(Timestamp(), snapshot.version, b"snapshot", NOW)

    assert (snapshot.meta["targets.json"].version, snapshot.meta["targets.json"].length) == (7, 7)
    assert timestamp.snapshot_meta.length == 8
    snapshot.meta["targets.json"].verify_length_and_hashes(b"targets")
    timestamp.snapshot_meta.verify_length_and_hashes(b"snapshot")
