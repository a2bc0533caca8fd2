"""Bytes that cannot be decoded raise one of three errors, and whoever decodes expects all of them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.edge_agent.local_api.decode import decode_json
from hedgerow.shared.errors import ContentError
from hedgerow.shared.messages import Heartbeat
from hedgerow.shared.unreadable import UNREADABLE

ROOT = Path(__file__).parents[2]
PARTS = ("server", "edge_agent", "shared", "models", "simulations")


@given(st.binary(max_size=200))
@pytest.mark.parametrize("decode", [msgspec.json.decode, msgspec.msgpack.decode])
def test_any_bytes_decode_or_raise_one_of_them(decode: Any, data: bytes) -> None:
    try:
        decode(data, type=Heartbeat)
    except UNREADABLE:
        return


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"a": "\xff"}', UnicodeDecodeError),
        (b"[" * 100_000, RecursionError),
        (b"{", msgspec.DecodeError),
    ],
)
def test_each_of_the_three_does_happen(data: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        msgspec.json.decode(data)


@pytest.mark.parametrize("data", [b'{"spec": "\xff", "data": []}', b'{"spec": ' + b"[" * 100_000, b"{"])
def test_a_person_at_the_local_api_is_told_and_nothing_ends(data: bytes) -> None:
    with pytest.raises(ContentError):
        decode_json(data, {})


def test_nobody_expects_only_msgspecs_own_error_where_bytes_are_decoded() -> None:
    alone = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if path.name != "unreadable.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and node.type is not None
        if "msgspec.DecodeError" in ast.unparse(node.type) and "UNREADABLE" not in ast.unparse(node.type)
    ]
    assert alone == []
