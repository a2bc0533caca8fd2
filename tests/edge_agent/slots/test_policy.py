"""May this version be installed? An order alone never brings an older one back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.edge_agent.slots import Confirmed, may_install
from hedgerow.shared.messages import BundleTarget

A, B, C = "a" * 64, "b" * 64, "c" * 64
hashes = st.sampled_from([A, B, C])
versions = st.integers(1, 9)


def target(version: int, sha: str = A, *, rollback_ok: bool = False) -> BundleTarget:
    return BundleTarget("pump", version, sha, rollback_ok)


def test_anything_may_be_first() -> None:
    assert may_install(target(1), None, None) == "allowed"


def test_a_newer_version_may_come() -> None:
    assert may_install(target(3), Confirmed(2, B), None) == "allowed"


def test_the_served_version_may_be_fetched_again() -> None:
    assert may_install(target(2, B), Confirmed(2, B), None) == "allowed"


def test_the_served_version_with_other_content_is_refused_even_with_leave() -> None:
    assert may_install(target(2, C, rollback_ok=True), Confirmed(2, B), C) == "refused"


def test_an_older_version_is_refused() -> None:
    assert may_install(target(1), Confirmed(2, B), A) == "refused"


def test_the_own_previous_one_may_come_back_when_asked() -> None:
    assert may_install(target(1, rollback_ok=True), Confirmed(2, B), A) == "allowed"


def test_another_older_one_needs_a_signature() -> None:
    assert may_install(target(1, rollback_ok=True), Confirmed(2, B), C) == "needs-signed-leave"
    assert may_install(target(1, rollback_ok=True), Confirmed(2, B), None) == "needs-signed-leave"


@settings(deadline=None)
@given(versions, hashes, versions, hashes, st.none() | hashes, st.booleans())
def test_an_older_version_never_comes_without_both_order_and_proof(
    version: int, sha: str, served: int, served_sha: str, previous: str | None, ok: bool
) -> None:
    verdict = may_install(target(version, sha, rollback_ok=ok), Confirmed(served, served_sha), previous)

    if version < served and verdict == "allowed":
        assert ok
        assert previous == sha
    if version < served and not ok:
        assert verdict == "refused"
    if version > served:
        assert verdict == "allowed"
