"""What a device may ask for, over every path and body size: nothing is reachable but what is listed."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from hedgerow.server.gateway import Mount, paths
from hedgerow.shared import limits

PIECES = st.sampled_from(
    ["v1", "device", "fleet", "control", "runtime", "..", ".", "", "%2e%2e", "ca", "join", "x", "V1"]
)
PATHS = st.lists(PIECES, max_size=7).map(lambda parts: "/" + "/".join(parts)) | st.text(max_size=40)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An app; these tests never call it."""


@given(PATHS)
def test_an_allowed_path_means_what_it_says(path: str) -> None:
    """Whoever normalises it later, a framework or a file system, ends where the gateway looked."""
    if paths.is_allowed(path):
        assert path.startswith(("/v1/device/", "/v1/fleet/"))
        assert posixpath.normpath(path).rstrip("/") == path.rstrip("/")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/device/../fleet/x", "/v1/device/..", "/v1/device/.", "/v1/device/./x", "/v1/device//x", "//v1/device/x",
        "/v1/device", "/v1/fleet", "/v1/devices/x", "/V1/device/x", "v1/device/x", "", "/", "/v1/control/x", "/v1/runtime/x",
    ],
)  # fmt: skip
def test_paths_that_are_not_plain_or_not_listed_are_not_allowed(path: str) -> None:
    assert not paths.is_allowed(path)


@given(st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "get", ""]), PATHS)
def test_only_two_requests_are_open_to_anyone(method: str, path: str) -> None:
    allowed = (method, path) in {("GET", "/v1/device/ca"), ("POST", "/v1/device/join")}
    assert paths.is_open(method, path) == allowed


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/device/ca"),
        ("GET", "/v1/device/join"),
        ("HEAD", "/v1/device/ca"),
        ("POST", "/v1/device/join/"),
    ],
)
def test_an_open_path_is_open_for_its_method_alone(method: str, path: str) -> None:
    assert not paths.is_open(method, path)


@given(
    st.lists(st.sampled_from(["/v1/device/", "/v1/device/round/", "/v1/fleet/", "/v1/d"]), max_size=6), PATHS
)
def test_the_longest_mount_that_fits_is_found(prefixes: list[str], path: str) -> None:
    mounts = [Mount(prefix, nothing) for prefix in prefixes]

    found = paths.find(mounts, path)

    fitting = [prefix for prefix in prefixes if path.startswith(prefix)]
    assert (found.prefix if found else None) == max(fitting, key=len, default=None)


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/fleet/push-object", 8 * limits.MIB),
        ("/v1/fleet/push-messages", limits.MIB),
        ("/v1/fleet/push-object/", limits.MAX_CONTROL_BODY_BYTES),
        ("/v1/fleet/pull-messages", limits.MAX_CONTROL_BODY_BYTES),
        ("/v1/fleet/anything", limits.MAX_CONTROL_BODY_BYTES),
    ],
)
def test_flowers_routes_have_their_own_bounds_whatever_the_mount_allows(path: str, limit: int) -> None:
    assert paths.max_body_bytes(path, Mount("/v1/fleet/", nothing, max_body_bytes=10**9)) == limit


def test_our_routes_have_their_mounts_bound() -> None:
    small, large = Mount("/v1/device/", nothing), Mount("/v1/device/round/", nothing, 10**9)

    assert paths.max_body_bytes("/v1/device/heartbeat", small) == limits.MAX_CONTROL_BODY_BYTES
    assert paths.max_body_bytes("/v1/device/round/reply", large) == 10**9
