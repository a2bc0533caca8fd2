"""Only names that the repository writes itself are ever opened for a device."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.server.delivery.paths import bundle_prefix, disk_path, is_metadata_name, is_target_path

SHA = "0" * 64


@pytest.mark.parametrize(
    "name", ["timestamp.json", "1.root.json", "12.snapshot.json", "999999999.targets.json"]
)
def test_metadata_names_are_known(name: str) -> None:
    assert is_metadata_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "root.json",
        "0.root.json",
        "1.timestamp.json",
        "../1.root.json",
        "1.root.json\n",
        "1.root.json/..",
        "1.keys.json",
    ],
)
def test_other_metadata_names_are_not(name: str) -> None:
    assert not is_metadata_name(name)


def test_what_is_published_can_be_fetched() -> None:
    assert is_target_path(disk_path(bundle_prefix("pump", 3) + "manifest.json", SHA))


@pytest.mark.parametrize(
    "path",
    [
        "",
        f"bundles/pump/1/{SHA}.../../x",
        f"bundles/../1/{SHA}.m",
        f"bundles/pump/0/{SHA}.m",
        f"/bundles/pump/1/{SHA}.m",
        f"bundles/pump/1/{SHA}.m/..",
        f"bundles/pump/1/{SHA[:-1]}.m",
        f"bundles/pump/1/{SHA}.m\x00",
        f"bundles/pump/1/{SHA}.m\n",
        "../secrets/root.pem",
    ],
)
def test_other_paths_are_not(path: str) -> None:
    assert not is_target_path(path)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_that_is_let_through_leaves_the_folder(path: str) -> None:
    if is_target_path(path) or is_metadata_name(path):
        assert ".." not in path.split("/")
        assert not path.startswith("/")
