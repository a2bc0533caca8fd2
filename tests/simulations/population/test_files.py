"""Data from files: what is whole is read exactly, what is damaged, ragged, too large or of another kind is refused by place."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.simulation_scenarios import population, scenario

from hedgerow.shared.errors import ConfigError, ContentError, UnsupportedError
from hedgerow.simulations.population.sources import idx, npz, pixels
from hedgerow.simulations.population.sources.csv_table import numbers, read_table
from hedgerow.simulations.population.sources.idx import read_idx
from hedgerow.simulations.population.sources.pixels import read_picture
from hedgerow.simulations.population.values import Population

RNG = np.random.default_rng(0)
SMALL = {"height": 8, "width": 10, "filters": 2, "classes": 3}
PICTURES = RNG.integers(256, size=(30, 8, 10)).astype(np.uint8)
LABELS = np.arange(30) % 3


def built(
    tmp_path: Path, recipe: str, parameters: dict[str, Any], source: str, path: str, **more: Any
) -> Population:
    made = scenario(
        job__recipe=recipe,
        job__parameters=parameters,
        population__source=source,
        population__path=path,
        population__devices=more.pop("devices", 3),
        **more,
    )
    return population(made, tmp_path)


def idx_bytes(values: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape) + values.tobytes()


def pgm(pixels: np.ndarray, white: int = 255) -> bytes:
    depth = b"P5" if pixels.ndim == 2 else b"P6"
    return (
        depth
        + b"\n# made by a test\n%d %d\n%d\n" % (pixels.shape[1], pixels.shape[0], white)
        + pixels.tobytes()
    )


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files_are_read_plain_or_packed(tmp_path: Path, packed: bool) -> None:
    def write(name: str, values: np.ndarray) -> None:
        data = idx_bytes(values)
        (tmp_path / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)

    write("train-images-idx3-ubyte", PICTURES[:24])
    write("train-labels-idx1-ubyte", LABELS[:24].astype(np.uint8))
    write("t10k-images-idx3-ubyte", PICTURES[24:])
    write("t10k-labels-idx1-ubyte", LABELS[24:].astype(np.uint8))
    found = built(tmp_path, "image-cnn", SMALL, "idx", ".")
    data = found.at(1)
    wanted = {
        x.tobytes(): int(y) for x, y in zip(PICTURES[:24].astype(np.float32) / 255, LABELS, strict=False)
    }

    assert data.y is not None
    assert {x.tobytes(): int(y) for x, y in zip(data.x, data.y, strict=True)} == wanted
    assert np.array_equal(found.held_out.x[..., 0], PICTURES[24:].astype(np.float32) / 255)
    assert found.held_out.y is not None
    assert np.array_equal(found.held_out.y, LABELS[24:])


def test_without_test_files_a_part_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(PICTURES)))
    (tmp_path / "b").write_bytes(idx_bytes(LABELS.astype(np.uint8)))
    options = {"images": "a", "labels": "b", "held_out": 0.1}
    found = built(tmp_path, "image-cnn", SMALL, "idx", ".", population__options=options)

    assert len(found.held_out.x) == 3
    assert len(found.at(1).x) == 27
    assert not {x.tobytes() for x in found.at(1).x} & {x.tobytes() for x in found.held_out.x}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not an IDX file: it begins with nothing"),
        (b"\x89PNG....", "not an IDX file"),
        (idx_bytes(PICTURES)[:-1], "2399 bytes of values; expected 2400"),
        (idx_bytes(PICTURES) + b"x", "more bytes of values; expected 2400"),
        (idx_bytes(PICTURES, kind=0x0D), "IDX type 0x0d"),
        (struct.pack(">HBB", 0, 8, 0), "0 axes"),
        (struct.pack(">HBB", 0, 8, 200) + bytes(800), "200 axes"),
        (struct.pack(">HBBI", 0, 8, 3, 5), "3 axes in a head of 8 bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31), "values; at most"),
        (gzip.compress(idx_bytes(PICTURES))[:-200], "damaged gzip"),
        (gzip.compress(idx_bytes(PICTURES))[:40] + bytes(500), "damaged gzip"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a").write_bytes(data)

    with pytest.raises(ContentError, match=why):
        read_idx(tmp_path / "a")


def test_a_small_file_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "MAX_BYTES", 10_000)
    bomb = gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 50, 8, 10) + bytes(50_000_000))
    (tmp_path / "a").write_bytes(bomb)

    with pytest.raises(ContentError, match="more bytes of values; expected 4000"):
        read_idx(tmp_path / "a")


def test_images_and_labels_of_different_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(PICTURES))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[:-1].astype(np.uint8)))

    with pytest.raises(ContentError, match=r"\(30, 8, 10\) with labels \(29,\)"):
        built(tmp_path, "image-cnn", SMALL, "idx", ".")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ContentError, match="there is no train-labels-idx1-ubyte nor"):
        built(tmp_path, "image-cnn", SMALL, "idx", ".")


def test_an_archive_of_images_with_groups_is_read_exactly(tmp_path: Path) -> None:
    groups = np.array(["east", "north", "west"])[np.arange(30) // 10]
    np.savez_compressed(
        tmp_path / "a.npz", x=PICTURES, y=LABELS, group=groups, x_test=PICTURES[:6], y_test=LABELS[:6]
    )
    found = built(tmp_path, "image-cnn", SMALL, "npz", "a.npz", population__partition={"kind": "natural"})

    assert found.group_names == ("east", "north", "west")
    for device in range(3):
        x, y = found.at(1).of(device)
        assert np.array_equal(x[..., 0], PICTURES[device * 10 : device * 10 + 10].astype(np.float32) / 255)
        assert y is not None
        assert np.array_equal(y, LABELS[device * 10 : device * 10 + 10])
    assert len(found.held_out.x) == 6


def test_an_archive_of_vectors_is_flattened_and_a_part_held_out(tmp_path: Path) -> None:
    x = RNG.random((40, 2, 3))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    parameters = {"inputs": 6, "classes": 2}
    found = built(tmp_path, "mlp", parameters, "npz", "a.npz", population__options={"held_out": 0.25})
    everything = np.concatenate([found.at(1).x, found.held_out.x])

    assert len(found.held_out.x) == 10
    assert {row.tobytes() for row in everything} == {
        row.tobytes() for row in x.reshape(40, 6).astype(np.float32)
    }


def test_images_of_floats_are_read_as_brightness_of_their_own_white(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=PICTURES / 255, y=LABELS, x_test=PICTURES / 255, y_test=LABELS)
    np.savez(tmp_path / "b.npz", x=PICTURES * 4.0, y=LABELS, x_test=PICTURES, y_test=LABELS)
    found = built(tmp_path, "image-cnn", SMALL, "npz", "a.npz")

    assert np.array_equal(found.held_out.x[..., 0], PICTURES.astype(np.float32) / 255)
    with pytest.raises(ConfigError, match=r"population\.options\.white: .*from 0 to 1020; expected 0 to 1$"):
        built(tmp_path, "image-cnn", SMALL, "npz", "b.npz")


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": PICTURES}, "has no array 'y'"),
        ({"x": PICTURES, "y": LABELS[:4]}, r"x \(30, 8, 10\) and y \(4,\)"),
        ({"x": PICTURES, "y": LABELS / 2}, "y is float64; expected whole numbers"),
        ({"x": PICTURES, "y": LABELS, "group": LABELS[:3]}, r"group \(3,\); expected \(30,\)"),
        ({"x": PICTURES + np.nan, "y": LABELS}, "not finite"),
        ({"x": PICTURES, "y": np.array([{}] * 30)}, "holds object"),
    ],
)
def test_an_archive_that_is_not_as_it_must_be_is_refused(
    tmp_path: Path, arrays: dict[str, Any], why: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)

    with pytest.raises(ContentError, match=why):
        built(tmp_path, "image-cnn", SMALL, "npz", "a.npz")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", x=PICTURES, y=LABELS)
    whole = (tmp_path / "whole.npz").read_bytes()
    for n, data in enumerate((b"", b"PK\3\4", whole[:-30], whole[:200] + bytes(40) + whole[240:])):
        (tmp_path / f"{n}.npz").write_bytes(data)
        with pytest.raises(ContentError, match=rf"{n}\.npz"):
            built(tmp_path, "image-cnn", SMALL, "npz", f"{n}.npz")


def test_an_archive_that_unpacks_to_too_much_is_refused_by_its_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 8, 10), np.uint8), y=np.zeros(1000, np.int64))
    monkeypatch.setattr(npz, "MAX_BYTES", 80_000)

    with pytest.raises(ContentError, match="unpacks to 88000 bytes; at most 80000"):
        built(tmp_path, "image-cnn", SMALL, "npz", "a.npz")


def test_a_folder_a_class_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for n, picture in enumerate(PICTURES):
        folder = tmp_path / "pictures" / ("cat", "dog", "owl")[LABELS[n]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n:02}.pgm").write_bytes(pgm(picture))
    (tmp_path / "pictures" / "cat" / "notes.txt").write_text("not a picture")
    found = built(tmp_path, "image-cnn", SMALL, "images", "pictures")
    known = {(p.astype(np.float32) / 255).tobytes(): int(y) for p, y in zip(PICTURES, LABELS, strict=True)}
    data = found.at(1)
    assert data.y is not None
    assert found.held_out.y is not None

    held = {x.tobytes(): int(y) for x, y in zip(data.x, data.y, strict=True)}
    out = {x.tobytes(): int(y) for x, y in zip(found.held_out.x, found.held_out.y, strict=True)}
    assert len(out) == 6
    assert held | out == known


def test_a_folder_a_device_makes_groups(tmp_path: Path) -> None:
    for n, picture in enumerate(PICTURES):
        folder = tmp_path / f"truck-{n % 5}" / "abc"[LABELS[n]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n}.pgm").write_bytes(pgm(picture))
    options = {"layout": "device-class"}
    found = built(
        tmp_path, "image-cnn", SMALL, "images", ".",
        population__options=options, population__partition={"kind": "natural"}, devices=5,
    )  # fmt: skip

    assert found.group_names == tuple(f"truck-{n}" for n in range(5))
    for device in range(5):
        mine = {(p.astype(np.float32) / 255).tobytes() for p in PICTURES[device::5]}
        assert {x.tobytes() for x in found.at(1).of(device)[0]} <= mine


def test_grey_and_colour_become_each_other(tmp_path: Path) -> None:
    colour = RNG.integers(256, size=(4, 5, 3)).astype(np.uint8)
    (tmp_path / "a.ppm").write_bytes(pgm(colour))
    (tmp_path / "b.pgm").write_bytes(pgm(colour[:, :, 0]))
    (tmp_path / "c.pgm").write_bytes(pgm(colour[:, :, 0] // 17, white=15))

    assert np.array_equal(read_picture(tmp_path / "a.ppm", 3), colour)
    grey = read_picture(tmp_path / "a.ppm", 1)[:, :, 0].astype(float)
    assert (
        np.abs(grey - (0.299 * colour[..., 0] + 0.587 * colour[..., 1] + 0.114 * colour[..., 2])).max() <= 0.5
    )
    assert np.array_equal(read_picture(tmp_path / "b.pgm", 3), np.repeat(colour[:, :, :1], 3, axis=2))
    assert np.array_equal(read_picture(tmp_path / "c.pgm", 1)[:, :, 0], colour[:, :, 0] // 17 * 17)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a binary PGM"),
        (b"P2\n2 2\n255\n1 2 3 4", "not a binary PGM"),
        (b"P5\n2 2\n255\n123", "3 bytes of pixels; expected 4"),
        (b"P5\n2 2\n255\n12345", "5 bytes of pixels; expected 4"),
        (b"P5\n2 2\n65535\n12345678", "brightness up to 65535"),
        (b"P5\n0 2\n255\n", "0 by 2"),
        (b"P5\n2 1\n9\n\x09\x0a", "a pixel of 10 where white is 9"),
    ],
)
def test_a_damaged_picture_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.pgm").write_bytes(data)

    with pytest.raises(ContentError, match=rf"a\.pgm: .*{why}"):
        read_picture(tmp_path / "a.pgm", 1)


def test_pictures_of_another_size_or_none_at_all_are_refused_by_path(tmp_path: Path) -> None:
    (tmp_path / "x" / "a").mkdir(parents=True)
    for n in range(3):
        (tmp_path / "x" / "a" / f"{n}.pgm").write_bytes(pgm(PICTURES[n][: 8 - n // 2]))

    with pytest.raises(ContentError, match=r"2\.pgm: 7 high, 10 wide; the recipe takes 8 by 10"):
        built(tmp_path, "image-cnn", SMALL, "images", "x")
    (tmp_path / "y").mkdir()
    with pytest.raises(ConfigError, match=r"population\.path: 0 pictures"):
        built(tmp_path, "image-cnn", SMALL, "images", "y")


def test_png_is_read_with_pillow_and_says_so_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(PICTURES[0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])

    assert np.array_equal(read_picture(tmp_path / "a.png", 1)[:, :, 0], PICTURES[0])
    with pytest.raises(ContentError, match=r"b\.png: not a sound picture"):
        read_picture(tmp_path / "b.png", 1)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(UnsupportedError, match="pip install pillow"):
        read_picture(tmp_path / "a.png", 1)
    assert ".pgm" in pixels.NETPBM


def csv_text(values: np.ndarray, titles: str, labels: list[str] | None = None) -> str:
    lines = [",".join(f"{v!r}" for v in row.tolist()) for row in values]
    if labels is not None:
        lines = [f"{line},{label}" for line, label in zip(lines, labels, strict=True)]
    return "\n".join([titles, *lines]) + "\n"


def test_a_folder_of_tables_becomes_vectors_with_named_classes(tmp_path: Path) -> None:
    values = RNG.normal(5, 3, (40, 3))
    kinds = ["bad", "good"]
    for n in range(4):
        part = slice(n * 10, n * 10 + 10)
        labels = [kinds[i % 2] for i in range(10)]
        (tmp_path / f"site-{n}.csv").write_text(csv_text(values[part], "a,b,c,quality", labels))
    options = {"label": "quality", "held_out": 0.1}
    found = built(
        tmp_path, "mlp", {"inputs": 3, "classes": 2}, "csv", ".",
        devices=4, population__options=options, population__partition={"kind": "natural"},
    )  # fmt: skip
    scaled = 0.5 + 0.25 * (values - values.mean(axis=0)) / values.std(axis=0)
    everything = np.concatenate([found.at(1).x, found.held_out.x])

    assert found.group_names == tuple(f"site-{n}.csv" for n in range(4))
    np.testing.assert_allclose(np.sort(everything, axis=0), np.sort(scaled, axis=0), atol=1e-6)
    assert len(found.held_out.x) == 4
    for row, label in zip(found.at(1).x, found.at(1).y.tolist(), strict=True):  # type: ignore[union-attr]
        place = int(np.abs(scaled - row).sum(axis=1).argmin())
        assert label == place % 2, "bad is 0, good is 1"


def test_columns_can_be_chosen_and_left_as_they_are(tmp_path: Path) -> None:
    values = RNG.random((20, 3))
    (tmp_path / "a.csv").write_text(csv_text(values, "a,b,c,y", [str(n % 2) for n in range(20)]))
    options = {"label": "y", "ignore": ["b"], "standardise": False}
    found = built(tmp_path, "mlp", {"inputs": 2, "classes": 2}, "csv", "a.csv", population__options=options)
    everything = np.concatenate([found.at(1).x, found.held_out.x])

    np.testing.assert_allclose(np.sort(everything[:, 0]), np.sort(values[:, 0]), rtol=1e-6)
    np.testing.assert_allclose(np.sort(everything[:, 1]), np.sort(values[:, 2]), rtol=1e-6)


def test_recordings_become_windows_of_normal_rows_and_the_last_are_held_out_with_their_faults(
    tmp_path: Path,
) -> None:
    values = RNG.normal(20, 2, (100, 2))
    for n in range(2):
        labels = ["0"] * 10 + ["1"] * 5 + ["0"] * 75 + ["2"] * 10
        (tmp_path / f"m{n}.csv").write_text(csv_text(values + n, "p,q,anomaly", labels))
    parameters = {"rows": 10, "channels": ["p", "q"], "hidden": 4, "code": 2, "slow": []}
    found = built(
        tmp_path, "anomaly-autoencoder", parameters, "csv", ".", devices=2,
        population__options={"label": "anomaly", "held_out": 0.3}, population__partition={"kind": "natural"},
    )  # fmt: skip

    # 10 windows a file, 7 for the device of which window 1 holds a fault, 3 held out of which the last does
    assert np.diff(found.at(1).offsets).tolist() == [6, 6]
    assert found.held_out.x.shape == (6, 10, 2)
    assert found.held_out.y is not None
    assert found.held_out.y.tolist() == [0, 0, 1, 0, 0, 1]
    both = np.concatenate([values, values + 1])
    expected = np.clip((values[:10] - both.mean(axis=0)) / both.std(axis=0), -4, 4)
    np.testing.assert_allclose(found.at(1).x[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1: expected different column titles"),
        ("a,b\n", "has no row"),
        ("a,a\n1,2\n", "line 1: expected different column titles"),
        ("a,b\n1,2\n1\n", "line 3: 1 values under 2 titles"),
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 values under 2 titles"),
        ("a,b\n1,2\n1,x\n", "line 3, column 'b': expected a number, got 'x'"),
        ("a,b\n1,\n", "line 2, column 'b': expected a number"),
        ("a,b\n1,nan\n", "line 2, column 'b': not a finite number"),
        ("a,b\n1,2\n-inf,2\n", "line 3, column 'a': not a finite number"),
        ("a,c\n1,2\n", "has no column 'b'; there are a, c"),
        ('a,b\n1,"2\n', "not CSV"),
    ],
)
def test_a_table_that_is_not_as_it_must_be_is_refused_by_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)

    with pytest.raises(ContentError, match=rf"t\.csv: .*{why}"):
        numbers(read_table(path, ","), ("a", "b"), path)


def test_what_a_table_cannot_give_is_refused_by_field(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4\n")
    parameters = {"inputs": 1, "classes": 2}
    for options, why in (
        ({}, r"population\.options\.label: recipe 'mlp' needs a column"),
        ({"label": "y"}, "has no column 'y'"),
        ({"label": "b"}, r"labels from 2 to 4; the recipe has 2 classes"),
    ):
        with pytest.raises((ConfigError, ContentError), match=why):
            built(tmp_path, "mlp", parameters, "csv", "a.csv", population__options=options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"population\.path: expected 1 to .* files named \*\.csv"):
        built(tmp_path, "mlp", parameters, "csv", "empty", population__options={"label": "b"})


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,\xff\n")

    with pytest.raises(ContentError, match="not UTF-8 text"):
        read_table(tmp_path / "a.csv", ",")


# --- scikit-learn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "inputs", "classes"),
    [("iris", 150, 4, 3), ("wine", 178, 13, 3), ("breast_cancer", 569, 30, 2), ("digits", 1797, 64, 10)],
)
def test_tables_of_scikit_learn_are_split_whole_and_scaled(
    name: str, rows: int, inputs: int, classes: int
) -> None:
    found = population(
        scenario(
            job__recipe="mlp",
            job__parameters={"inputs": inputs, "classes": classes},
            population__source="sklearn",
            population__options={"set": name},
        )
    )
    x = np.concatenate([found.at(1).x, found.held_out.x])

    assert len(x) == rows
    assert len(found.held_out.x) == round(0.2 * rows)
    assert found.at(1).y is not None
    assert set(found.at(1).y.tolist()) == set(range(classes))  # type: ignore[union-attr]
    if name != "digits":
        np.testing.assert_allclose(x.mean(axis=0), 0.5, atol=1e-5)
        np.testing.assert_allclose(x.std(axis=0), 0.25, atol=1e-5)
    else:
        assert (x.min(), x.max()) == (0, 1)
