"""Files that somebody else wrote, wrongly or on purpose: each is read as what it says or refused by path, never a crash."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_scenarios import population, scenario

from hedgerow.shared.errors import ConfigError, ContentError, HedgerowError
from hedgerow.simulations.population.sources.csv_table import read_table
from hedgerow.simulations.population.sources.pixels import read_picture
from hedgerow.simulations.population.values import Population

TITLES = "a,b,c\n"
ROWS = "1,2,0\n3,4,1\n5,6,2\n" * 3
X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])
OVER_FLOAT32 = 1e39


def built(tmp_path: Path, source: str, path: str, **more: Any) -> Population:
    changes: dict[str, Any] = {
        "job__recipe": "mlp",
        "job__parameters": {"inputs": 2, "classes": 3},
        "population__devices": 2,
        "population__source": source,
        "population__path": path,
        **more,
    }
    return population(scenario(**changes), tmp_path)


def from_csv(tmp_path: Path, text: str | bytes, **options: Any) -> Population:
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "t.csv").write_bytes(data)
    return built(tmp_path, "csv", "t.csv", population__options={"label": "c", **options})


def from_npz(tmp_path: Path, options: dict[str, Any] | None = None, **arrays: Any) -> Population:
    np.savez(tmp_path / "a.npz", **arrays)
    return built(tmp_path, "npz", "a.npz", population__options=options or {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1: expected different column titles"),
        ("\n1,2,0\n", "line 2: 3 values under 0 titles"),
        (TITLES, "has no row of values"),
        ("a,a,c\n1,2,0\n", "line 1: expected different column titles"),
        (TITLES + ROWS + "1,2\n", "line 11: 2 values under 3 titles"),
        (TITLES + ROWS + ",2,0\n", "line 11, column 'a': expected a number, got ''"),
        (TITLES + ROWS + "1,nan,0\n", "line 11, column 'b': not a finite number"),
        (TITLES + ROWS + "1,-inf,0\n", "line 11, column 'b': not a finite number"),
        (TITLES + ROWS + f"1,{OVER_FLOAT32},0\n", "line 11, column 'b': not a finite number of float32"),
        (TITLES + ROWS + "1,2,\n", "line 11, column 'c': expected a class, got nothing"),
        (TITLES + ROWS + "1,2,  \n", "line 11, column 'c': expected a class, got nothing"),
        (TITLES + ROWS + '"1,2,0\n', "not CSV"),
        (TITLES + "1" * 200_000 + ",2,0\n", "not CSV: field larger"),
        ((TITLES + ROWS).encode("utf-16"), "not UTF-8 text"),
        (b"a,b,c\n1,\xff,0\n", "not UTF-8 text"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_line(tmp_path: Path, text: str | bytes, why: str) -> None:
    with pytest.raises(ContentError, match=why) as caught:
        from_csv(tmp_path, text, standardise=False)

    assert str(tmp_path / "t.csv") in str(caught.value)


@pytest.mark.parametrize("label", ["²", "9" * 30, "9" * 5000, "١", "-1", "1e0", "nan"])
def test_a_class_that_is_no_small_whole_number_is_a_name(tmp_path: Path, label: str) -> None:
    text = TITLES + "1,2,zebra\n" * 5 + f"3,4,{label}\n" * 5
    found = from_csv(tmp_path, text, standardise=False).at(1)
    expected = {3.0: sorted(("zebra", label)).index(label), 1.0: sorted(("zebra", label)).index("zebra")}

    assert found.y is not None
    assert {(float(x[0]), int(y)) for x, y in zip(found.x, found.y, strict=True)} <= set(expected.items())
    assert len(set(found.y.tolist())) == 2


def test_a_column_of_names_that_are_digits_only_to_unicode_is_no_number(tmp_path: Path) -> None:
    found = from_csv(tmp_path, TITLES + "1,2,²\n" * 4 + "1,2,³\n" * 4).at(1)

    assert found.y is not None
    assert set(found.y.tolist()) <= {0, 1}


@pytest.mark.parametrize("separator", ["\n", '"', "é", "\0", " ", "\\"])
def test_a_separator_that_is_in_no_file_is_told_as_a_table_of_one_column(
    tmp_path: Path, separator: str
) -> None:
    with pytest.raises(ContentError, match=r"t\.csv"):
        from_csv(tmp_path, TITLES + ROWS, separator=separator)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name, source in (("p.csv", "csv"), ("p.npz", "npz")):
        os.mkfifo(tmp_path / name)

        with pytest.raises(ContentError, match="not a file"):
            built(tmp_path, source, name, population__options={"label": "c"} if source == "csv" else {})


def test_a_device_that_never_ends_is_not_read() -> None:
    with pytest.raises(ContentError, match="/dev/zero: not a file"):
        read_table(Path("/dev/zero"), ",")


def test_what_is_named_as_a_table_and_is_none_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a.csv").write_text(TITLES + ROWS)
    (folder / "b.csv").mkdir()
    with pytest.raises(ContentError, match=r"b\.csv: cannot be read: Is a directory"):
        built(tmp_path, "csv", "d", population__options={"label": "c"})

    (folder / "b.csv").rmdir()
    (folder / "b.csv").symlink_to(folder / "nowhere")
    with pytest.raises(ContentError, match=r"b\.csv: cannot be read: No such file"):
        built(tmp_path, "csv", "d", population__options={"label": "c"})


def test_a_link_is_read_as_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(TITLES + ROWS)
    (tmp_path / "link.csv").symlink_to("real")

    assert len(built(tmp_path, "csv", "link.csv", population__options={"label": "c"}).at(1).x) == 7


def test_a_file_whose_name_is_no_text_gives_a_group_whose_name_is(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for name in (b"\xff\xfe.csv", b"plain.csv"):
        (folder / os.fsdecode(name)).write_text(TITLES + ROWS)
    found = built(
        tmp_path,
        "csv",
        "d",
        population__options={"label": "c"},
        population__partition__kind="natural",
    )

    assert sorted(found.group_names) == ["\\udcff\\udcfe.csv", "plain.csv"]
    for group in found.group_names:
        group.encode("utf-8")


def test_folders_of_pictures_may_have_any_name_too(tmp_path: Path) -> None:
    picture = b"P5\n8 8\n255\n" + bytes(64)
    for device in (b"\xe9t\xe9", b"winter"):
        for label in ("cat", "dog"):
            folder = tmp_path / os.fsdecode(device) / label
            folder.mkdir(parents=True)
            for n in range(3):
                (folder / f"{n}.pgm").write_bytes(picture)
    found = built(
        tmp_path,
        "images",
        ".",
        job__recipe="image-cnn",
        job__parameters={"height": 8, "width": 8, "filters": 2, "classes": 2},
        population__options={"layout": "device-class"},
        population__partition__kind="natural",
    )

    assert sorted(found.group_names) == ["\\udce9t\\udce9", "winter"]


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": X.astype("U8"), "y": Y}, "x is text"),
        ({"x": X, "y": Y.astype("U8")}, "y is <U8; expected whole numbers"),
        ({"x": X.astype(np.float64) * OVER_FLOAT32, "y": Y}, "not finite in float32"),
        ({"x": np.where(X == 3, np.nan, X), "y": Y}, "not finite in float32"),
        ({"x": np.where(X == 3, -np.inf, X), "y": Y}, "not finite in float32"),
        ({"x": X.astype(np.complex64), "y": Y}, r"x\.npy holds complex64"),
        ({"x": X, "y": Y, "group": np.array([{"a": 1}] * 6, object)}, r"group\.npy holds object"),
        ({"x": X, "y": Y, "more": np.zeros(2, [("a", "i4")])}, r"more\.npy holds"),
        ({"x": X, "y": Y, "more": np.zeros(2, "M8[s]")}, r"more\.npy holds datetime64"),
        ({"x": X[:0], "y": Y[:0]}, "x is empty"),
        ({"x": X[:, :0], "y": Y}, "x is empty"),
        ({"x": X[:1], "y": Y[:1]}, "1 examples; at least two"),
        ({"x": X, "y": Y, "x_test": X[:0], "y_test": Y[:0]}, "x_test is empty"),
        ({"x": X, "y": Y, "x_test": X}, "one of x_test and y_test"),
        ({"x": X, "y": Y, "y_test": Y}, "one of x_test and y_test"),
        ({"x": X, "y": Y, "x_test": X * np.nan, "y_test": Y}, "x_test holds values"),
        ({"x": X, "y": Y[:5]}, "expected"),
        ({"x": X, "y": Y[:, None]}, "expected"),
        ({"x": np.float32(1), "y": Y}, "expected"),
        ({"x": X, "y": Y, "group": np.ones((6, 1))}, r"group \(6, 1\)"),
        ({"y": Y}, "has no array 'x'"),
    ],
)
def test_an_archive_that_cannot_be_is_refused_by_array(
    tmp_path: Path, arrays: dict[str, Any], why: str
) -> None:
    with pytest.raises(ContentError, match=why):
        from_npz(tmp_path, **arrays)


@pytest.mark.parametrize("y", [np.full(6, -1), np.full(6, 3), np.full(6, 2**64 - 1, np.uint64)])
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, y: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="the recipe has 3 classes"):
        from_npz(tmp_path, x=X, y=y)


@pytest.mark.parametrize("kind", [">f4", "<f8", "f2", "g", "i1", ">i8", "u2", "?"])
def test_whatever_the_numbers_are_they_come_out_the_same(tmp_path: Path, kind: str) -> None:
    """Byte order, width and order in memory are the file's own affair."""
    x = np.asfortranarray((X % 2).astype(kind))
    found = from_npz(tmp_path, x=x, y=Y.astype(">i2"))
    seen = np.concatenate([found.at(1).x, found.held_out.x])

    assert seen.dtype == np.float32
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, (X % 2).tolist()))


def head(shape: str, kind: str = "<f4") -> bytes:
    """Return the beginning of an NPY file that says it has this shape."""
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (64 - (11 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"x": head("(3, -2)"), "y": head("(6,)")}, r"x\.npy has the shape \(3, -2\)"),
        # Without a look at each sign, the second would pay for the first.
        ({"x": head("(3000000000, 2)"), "w": head("(-1000000000000,)")}, r"w\.npy has the shape"),
        ({"x": head("(True, 2)") + bytes(8), "y": head("(1,)") + bytes(4)}, r"x\.npy has the shape"),
        ({"x": head(f"({2**70}, 2)")}, "unpacks to"),
        ({"x": head("(1000000000, 9)")}, "unpacks to 36000000000 bytes"),
        ({"x": head(f"(0, {2**62})"), "y": head("(0,)", "<i8")}, "not a sound"),
        ({"x": head(f"({10**15},)", "<U0"), "y": head("(1,)") + bytes(4)}, "expected"),
        ({"x": head("(6, 2)"), "y": head("(6,)", "<i8") + bytes(48)}, "not a sound"),
        ({"x": b"no array at all", "y": head("(6,)")}, "not a sound"),
        ({"x": head("(6, 2)", "|O") + bytes(99)}, "holds object"),
        ({"x": head("'(6, 2)'")}, "not a sound"),
        ({"x": head("(6, 2").replace(b"}", b"")}, "not a sound"),
    ],
)
def test_a_head_that_lies_is_refused_before_anything_is_unpacked(
    tmp_path: Path, members: dict[str, bytes], why: str
) -> None:
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)

    with pytest.raises(ContentError, match=why):
        built(tmp_path, "npz", "b.npz")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    np.savez(tmp_path / "a.npz", x=X, y=Y, group=np.array([Evil()] * 6, object))

    with pytest.raises(ContentError, match="holds object"):
        built(tmp_path, "npz", "a.npz")
    assert not (tmp_path / "ran").exists()


def test_a_white_that_no_picture_has_is_refused_with_what_there_is(tmp_path: Path) -> None:
    picture = {
        "job__recipe": "image-cnn",
        "job__parameters": {"height": 8, "width": 8, "filters": 2, "classes": 3},
    }
    np.savez(tmp_path / "a.npz", x=np.arange(384.0).reshape(6, 8, 8), y=Y)

    with pytest.raises(ConfigError, match="values from 0 to 383; expected 0 to 1"):
        built(tmp_path, "npz", "a.npz", **picture)
    found = built(tmp_path, "npz", "a.npz", **picture, population__options={"white": 383.0})
    seen = np.concatenate([found.at(1).x, found.held_out.x])
    # Bytes stand between: half a step of 255 either way.
    assert np.abs(np.sort(seen.ravel()) - np.arange(384) / 383).max() <= 0.5 / 255 + 1e-6


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_a_picture_of_sixteen_bits_is_refused_and_not_read_as_white(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 16).reshape(4, 4).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(png(deep))
    (tmp_path / "flat.png").write_bytes(png((deep >> 8).astype(np.uint8)))

    with pytest.raises(ContentError, match=r"deep\.png: more than eight bits a channel"):
        read_picture(tmp_path / "deep.png", 1)
    assert np.array_equal(read_picture(tmp_path / "flat.png", 1)[:, :, 0], deep >> 8)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_whatever_bytes_a_picture_is_made_of_nothing_but_our_own_errors_come(
    tmp_path: Path, ending: str
) -> None:
    from PIL import Image

    rng = np.random.default_rng(3)
    out = io.BytesIO()
    whole = Image.fromarray(rng.integers(0, 256, (24, 24, 3)).astype(np.uint8))
    whole.save(out, "PNG" if ending == "png" else "JPEG")
    data, refused = out.getvalue(), 0
    for n in range(200):
        bad = bytearray(data)
        # Most of what can go wrong is in the head.
        for _ in range(int(rng.integers(1, 4))):
            bad[rng.integers(0, min(len(bad), 200) if n % 2 else len(bad))] = rng.integers(0, 256)
        path = tmp_path / f"bad.{ending}"
        path.write_bytes(bytes(bad[: rng.integers(0, len(bad))]) if n % 5 == 0 else bytes(bad))
        try:
            picture = read_picture(path, 3)
        except HedgerowError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert picture.dtype == np.uint8
            assert picture.ndim == 3
    assert refused > 40


def test_test_images_of_nobody_are_refused(tmp_path: Path) -> None:
    def write(name: str, values: np.ndarray) -> None:
        top = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        (tmp_path / name).write_bytes(top + values.astype(np.uint8).tobytes())

    write("train-images-idx3-ubyte", np.zeros((6, 8, 8)))
    write("train-labels-idx1-ubyte", Y)
    write("t10k-images-idx3-ubyte", np.zeros((0, 8, 8)))
    write("t10k-labels-idx1-ubyte", np.zeros(0))

    with pytest.raises(ContentError, match="t10k-images-idx3-ubyte: no image in it"):
        built(
            tmp_path,
            "idx",
            ".",
            job__recipe="image-cnn",
            job__parameters={"height": 8, "width": 8, "filters": 2, "classes": 3},
        )


def test_a_test_share_that_leaves_nobody_a_test_is_named() -> None:
    one_each: dict[str, Any] = {
        "job__recipe": "mlp",
        "job__parameters": {"inputs": 6, "classes": 3},
        "population__source": "synthetic-vectors",
        "population__options": {"samples": 5},
        "population__devices": 5,
    }

    with pytest.raises(ConfigError, match=r"population\.test_share: 0\.5 of so few examples"):
        population(scenario(**one_each, population__test_share=0.5))
    assert len(population(scenario(**one_each)).at(1).x) == 5
