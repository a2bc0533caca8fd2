"""TOML from anybody: whatever is in it, the answer is a value or a ConfigError that names its source."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from hedgerow.shared import limits
from hedgerow.shared.errors import ConfigError
from hedgerow.shared.job import Job
from hedgerow.shared.profile import DeviceProfile
from hedgerow.shared.tomlfile import from_table, parse_table, parse_toml, read_toml

HEAD = 'name = "a"\nrecipe = "r"\n[privacy]\nmode = "none"\n'


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    n: Annotated[int, Meta(ge=0)] = 0


class Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"kind_of": "kind"}):
    one: Leaf = Leaf()
    many: tuple[Leaf, ...] = ()
    by_name: dict[str, Leaf] = {}
    maybe: Leaf | None = None
    bounded: Annotated[tuple[Leaf, ...], Meta(max_length=2)] = ()
    free: dict[str, Any] = {}
    kind_of: str = ""


@pytest.mark.parametrize("kind", [Job, DeviceProfile])
@given(data=st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_config_error(kind: Any, data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_toml(data, kind, "x.toml"), kind)


@pytest.mark.parametrize("kind", [Job, DeviceProfile])
@given(text=st.text(alphabet="[]{}=\"\n .#'-_0123456789aeinfTZ:\\,", max_size=120))
def test_no_text_that_looks_like_toml_does_either(kind: Any, text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_toml(text.encode(), kind, "x.toml"), kind)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.dates()
TABLES = st.dictionaries(
    st.sampled_from(["one", "many", "by_name", "maybe", "bounded", "free", "kind", "n", "x"]),
    st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["n", "x"]), inner, max_size=2)
        ),
        max_leaves=6,
    ),
)


@given(TABLES)
def test_no_table_of_any_types_does(table: dict[str, Any]) -> None:
    try:
        read = from_table(table, Tree, "t.toml")
    except ConfigError as error:
        assert str(error).startswith("t.toml: ")
    else:
        assert set(table) <= {"one", "many", "by_name", "maybe", "bounded", "free", "kind"}
        assert read.one.n >= 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rounds = " + "1" * 5000 + "\n" + HEAD, "not TOML: Exceeds the limit"),
        ("x = " + "[" * 60_000 + "\n" + HEAD, "nested too deeply"),
        (HEAD + "[parameters" + ".a" * 30_000 + "]\n", "nested too deeply"),
        (HEAD + "[parameters]\na" + ".a" * 2_000 + " = 1\n", "nested too deeply"),
        (HEAD + "[parameters]\nd = 2026-13-45\n", "not TOML"),
        ('name = "b"\n' + HEAD, "not TOML: Cannot overwrite a value"),
        (HEAD + "[privacy]\n", "not TOML: Cannot declare"),
        ('name = "a\n', "not TOML: Illegal character"),
        ("\ufeff" + HEAD, "not TOML"),
        ("name = 'a'\x00", "not TOML"),
    ],
    ids=["digits", "arrays", "tables", "dotted", "date", "twice", "block twice", "open", "bom", "nul"],
)
def test_what_breaks_a_parser_is_told_as_a_mistake_in_the_file(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_toml(text.encode(), Job, "job.toml")

    assert str(caught.value).startswith("job.toml: ")
    assert said in str(caught.value)


TOP = "top-level keys are bounded, by_name, free, kind, many, maybe, one"


@pytest.mark.parametrize(
    ("table", "paths", "told"),
    [
        ({"x": 1}, ["x"], TOP),
        ({"one": {"x": 1}}, ["one.x"], "keys of one are n"),
        ({"many": [{"n": 1}, {"x": 1}, {"y": 2}]}, ["many[1].x", "many[2].y"], "keys of many[1] are n"),
        ({"by_name": {"a": {"n": 1}, "b": {"x": 1}}}, ["by_name.b.x"], "keys of by_name.b are n"),
        ({"maybe": {"x": 1}}, ["maybe.x"], "keys of maybe are n"),
        ({"bounded": [{"x": 1}]}, ["bounded[0].x"], "keys of bounded[0] are n"),
        ({"kind_of": ""}, ["kind_of"], TOP),
        ({"one": {"x": 1}, "y": 2, "maybe": {"z": 3}}, ["maybe.z", "one.x", "y"], TOP),
    ],
)
def test_every_unknown_key_is_listed_wherever_it_stands(
    table: dict[str, Any], paths: list[str], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        from_table(table, Tree, "t.toml")

    listed = str(caught.value).split("unknown key")[1].lstrip("s ").split(";")[0]
    assert listed.split(", ") == paths
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("table", "meant"),
    [
        ({"bounded_": []}, "did you mean bounded?"),
        ({"mayby": {}}, "did you mean maybe?"),
        ({"one": {"nn": 1}, "byname": {}}, "did you mean by_name, one.n?"),
        ({"many": [{"nn": 1}]}, "did you mean many[0].n?"),
    ],
)
def test_a_misspelt_key_is_told_what_it_may_mean(table: dict[str, Any], meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_table(table, Tree, "t.toml")

    assert meant in str(caught.value)


def test_a_key_like_no_other_is_not_guessed_at_and_thousands_take_no_time() -> None:
    with pytest.raises(ConfigError) as caught:
        from_table({"q" * 100_000: 1, **{f"x{n}": n for n in range(5000)}}, Tree, "t.toml")

    assert "did you mean" not in str(caught.value)
    assert "x4999" in str(caught.value)


def test_a_free_table_takes_any_key_and_a_renamed_one_its_written_name() -> None:
    read = from_table({"free": {"x": {"y": [1]}}, "kind": "k"}, Tree, "t.toml")

    assert (read.free, read.kind_of) == ({"x": {"y": [1]}}, "k")


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ({"one": {"n": -1}}, "$.one.n"),
        ({"one": 3}, "$.one"),
        ({"many": [{"n": 1}, {"n": "a"}]}, "$.many[1].n"),
        ({"by_name": {"a": {"n": -1}}}, "$.by_name[...].n"),
        ({"bounded": [{}, {}, {}]}, "$.bounded"),
        ({"kind": 1}, "$.kind"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(table: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_table(table, Tree, "t.toml")

    assert f"`{place}`" in str(caught.value)


@given(st.dictionaries(st.from_regex(r"\A[a-z]{1,8}\Z"), st.integers(-(2**63), 2**63 - 1) | st.booleans()))
def test_a_plain_table_comes_back(table: dict[str, Any]) -> None:
    lines = [f"{key} = {str(value).lower()}" for key, value in table.items()]

    assert parse_table("\n".join(lines).encode(), "t.toml") == table


def test_the_bound_is_on_bytes_and_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_bytes(HEAD.encode().ljust(limits.MAX_TOML_BYTES, b"\n"))
    assert read_toml(path, Job).name == "a"

    path.write_bytes(HEAD.encode().ljust(limits.MAX_TOML_BYTES + 1, b"\n"))
    with pytest.raises(ConfigError, match=rf"job\.toml: larger than {limits.MAX_TOML_BYTES} bytes"):
        read_toml(path, Job)


@pytest.mark.parametrize(("data", "byte"), [(b"\xff", 0), (b"# \xc3(", 2), (b"ok = 1\n\xed\xa0\x80", 7)])
def test_the_first_byte_that_is_no_text_is_named(data: bytes, byte: int) -> None:
    with pytest.raises(ConfigError, match=rf"t\.toml: not UTF-8 text \(byte {byte}\)"):
        parse_table(data, "t.toml")


def test_the_bound_on_depth_is_exact() -> None:
    depth = limits.MAX_TOML_DEPTH - 1
    table = parse_table(f"a = {'[' * depth}{']' * depth}".encode(), "t.toml")
    assert str(table["a"]).count("[") == depth

    with pytest.raises(ConfigError, match=f"t.toml: .*more than {limits.MAX_TOML_DEPTH} levels"):
        parse_table(f"a = {'[' * depth}1{']' * depth}".encode(), "t.toml")


def test_a_folder_and_a_file_that_may_not_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_toml(tmp_path, Job)
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError, match=r"loop\.toml: cannot be read: Too many levels"):
        read_toml(loop, Job)
