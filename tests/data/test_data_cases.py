"""Inputs on which other tools go wrong in silence: each kind, in the layouts that it concerns."""

from __future__ import annotations

import os
import shlex
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import class_folder, confirm, idx_pair, pixels, png, table_folder
from test_data_celeba import celeba

from veilset.cli.main import main
from veilset.core.errors import DataError
from veilset.data import Dataset, check, declare, init, load, prepare
from veilset.data.reading import Reading


def faults(source: Path, severity: str = "fault") -> list[str]:
    return [str(f) for f in check(source) if f.severity == severity]


# ---------------------------------------------------------------------- pictures that are stored turned

UPRIGHT = np.repeat(np.array([[255], [0]], np.uint8), 4, 0).repeat(8, 1)  # [8, 8], white above


def turned(folder: Path) -> Path:
    tag = Image.Exif()
    tag[0x0112] = 6
    stored = Image.fromarray(UPRIGHT).transpose(Image.Transpose.ROTATE_90)
    (folder / "a").mkdir(parents=True)
    for suffix, kind in (("jpg", "JPEG"), ("png", "PNG"), ("tif", "TIFF"), ("webp", "WEBP")):
        stored.save(folder / "a" / f"turned{suffix}.{suffix}", kind, exif=tag)
    return folder


def test_a_picture_with_a_turning_tag_is_a_fault_in_every_format(tmp_path: Path) -> None:
    root = turned(tmp_path / "s")
    confirm(root, classes=("a",), shape=(1, 8, 8))
    (root / "a" / "turnedwebp.webp").unlink()  # has no grey: a fault for another reason
    found = faults(root)
    assert len(found) == 3
    assert all("is stored turned (its tag Orientation is 6); convert the set" in f for f in found)


def test_a_turning_tag_is_a_fault_in_tables_and_celeba_too(tmp_path: Path) -> None:
    root = turned(tmp_path / "t")
    (root / "labels.csv").write_text("file,label\n" + "".join(f"a/turned{s}.{s},a\n" for s in ("jpg", "png", "tif")))
    (root / "a" / "turnedwebp.webp").unlink()
    confirm(root, classes=("a",), shape=(1, 8, 8))
    assert len([f for f in faults(root) if "Orientation is 6" in f]) == 3


def test_prepare_turns_every_format_once(tmp_path: Path) -> None:
    out = prepare(turned(tmp_path / "s"), tmp_path / "out", grey=True)
    for path in (out / "a").iterdir():
        assert np.abs(np.asarray(Image.open(path)).astype(int) - UPRIGHT).max() < 30, path.name


def test_prepare_turns_deep_pictures_too(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    (tmp_path / "s" / "a").mkdir(parents=True)
    stored = Image.fromarray(np.rot90(UPRIGHT).astype(np.uint16) * 16)
    stored.save(tmp_path / "s" / "a" / "x.png", exif=tag)
    stored.save(tmp_path / "s" / "a" / "y.tif", exif=tag)
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 4080))
    for path in (out / "a").iterdir():
        assert (np.asarray(Image.open(path)) == UPRIGHT).all(), path.name


# ---------------------------------------------------------------------- more than 8 bits a channel


def deep_png(path: Path, values: np.ndarray) -> None:
    """uint16 [H, W, channels] as a PNG: 2 channels are grey with alpha, 3 colour, 4 colour with alpha."""

    def part(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")
    )


def deep_tiff(path: Path, values: np.ndarray) -> None:
    """uint16 [H, W, 3] as an uncompressed TIFF of little-endian bytes."""
    h, w, c = values.shape
    tags = [(256, 3, 1, w), (257, 3, 1, h), (258, 3, 3, 8 + h * w * c * 2), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, h), (279, 4, 1, h * w * c * 2)]
    body = values.astype("<u2").tobytes() + struct.pack("<3H", 16, 16, 16)
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags) + struct.pack("<I", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + ifd)


def deep_values(channels: int, top: int = 4095) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, top + 1, (6, 5, channels)).astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_12_bits_of_colour_in_16_are_refused_without_a_window_and_scaled_with_it(tmp_path: Path, suffix: str) -> None:
    values, path = deep_values(3), tmp_path / "s" / "a" / f"x.{suffix}"
    if suffix == "ppm":
        path.parent.mkdir(parents=True)
        path.write_bytes(b"P6\n5 6\n4095\n" + values.astype(">u2").tobytes())
    else:
        (deep_png if suffix == "png" else deep_tiff)(path, values)
    with pytest.raises(DataError, match="has 16 bits a channel; declare a window"):
        prepare(tmp_path / "s", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 4095))
    wanted = np.rint(values * (255 / 4095)).astype(np.uint8)
    assert (np.asarray(Image.open(out / "a" / "x.png")) == wanted).all()
    confirm(tmp_path / "s", classes=("a",), shape=(3, 6, 5))
    assert "--window 0,65535`" in faults(tmp_path / "s")[0]


def test_colour_with_alpha_of_16_bits_is_laid_on_black(tmp_path: Path) -> None:
    values = deep_values(4, 65535)
    deep_png(tmp_path / "s" / "a" / "x.png", values)
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 65535))
    wanted = values[..., :3] * (values[..., 3:] / 65535) / 257
    assert np.abs(np.asarray(Image.open(out / "a" / "x.png")) - wanted).max() <= 0.5 + 1e-9


def test_grey_with_alpha_of_16_bits_has_one_channel(tmp_path: Path) -> None:
    values = deep_values(2, 65535)
    deep_png(tmp_path / "s" / "a" / "x.png", values)
    init(tmp_path / "s")
    assert declare.read(tmp_path / "s").info.shape == (1, 6, 5)
    with pytest.raises(DataError, match="has 16 bits a channel; declare a window"):
        prepare(tmp_path / "s", tmp_path / "out")
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 65535))
    wanted = values[..., 0] * (values[..., 1] / 65535) / 257
    assert np.abs(np.asarray(Image.open(out / "a" / "x.png")) - wanted).max() <= 0.5 + 1e-9


def test_values_of_a_12_bit_pgm_are_the_stored_ones(tmp_path: Path) -> None:
    values, path = deep_values(1)[..., 0], tmp_path / "s" / "a" / "x.pgm"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"P5\n# made by a scanner\n5 6\n4095\n" + values.astype(">u2").tobytes())
    out = prepare(tmp_path / "s", tmp_path / "out", window=(0, 4095))
    assert (np.asarray(Image.open(out / "a" / "x.png")) == np.rint(values * (255 / 4095))).all()


# ---------------------------------------------------------------------- labels that are numbers


def test_numbers_with_gaps_are_the_classes_that_occur_in_numeric_order(tmp_path: Path) -> None:
    x, y = pixels(6), np.array([30, 10, 30, 9, 10, 30], np.uint8)
    np.savez(tmp_path / "n.npz", x=x, y=y)
    idx_pair(tmp_path / "i", "train", x[:, 0], y)
    for name in ("n.npz", "i"):
        init(tmp_path / name)
        assert declare.read(tmp_path / name).info.classes == ("9", "10", "30"), name
        confirm(tmp_path / name, classes=("9", "10", "30"))
        assert faults(tmp_path / name) == []
        assert load(tmp_path / name).train._open().labels.tolist() == [2, 1, 2, 0, 1, 2]
        confirm(tmp_path / name, classes=("9", "10"))
        assert "label 30 is not one of the 2 declared classes (9..10)" in faults(tmp_path / name)[0]


def test_dates_are_two_classes_and_ids_are_refused_with_their_count(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=pixels(4), y=np.array([20240101, 20231231] * 2))
    init(tmp_path / "d.npz")
    assert declare.read(tmp_path / "d.npz").info.classes == ("20231231", "20240101")
    np.savez(tmp_path / "ids.npz", x=np.zeros((10001, 2, 2), np.uint8), y=np.arange(10001) * 7)
    with pytest.raises(DataError, match="10001 different labels, at most 10000 can be classes"):
        init(tmp_path / "ids.npz")
    assert not (tmp_path / "ids.veilset.toml").exists()


def test_letters_begin_with_one_and_a_declared_offset_names_them(tmp_path: Path) -> None:
    x, y = pixels(3), np.array([1, 2, 3], np.uint8)
    idx_pair(tmp_path / "i", "letters-train", x[:, 0], y, gz=True)
    init(tmp_path / "i")
    assert declare.read(tmp_path / "i").info.classes == ("1", "2", "3")
    confirm(tmp_path / "i", classes=("A", "B", "C"), units=3)
    assert "label 3 is not one of the 3 declared classes (0..2)" in faults(tmp_path / "i")[0]
    path = tmp_path / "i" / "veilset.toml"
    path.write_text(path.read_text() + "label_offset = 1\n")
    assert faults(tmp_path / "i") == [] and load(tmp_path / "i").train._open().labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("gz", [False, True])
def test_a_declared_transposition_exchanges_rows_and_columns(tmp_path: Path, gz: bool) -> None:
    x = pixels(3, (1, 4, 5))
    idx_pair(tmp_path / "i", "train", x[:, 0].transpose(0, 2, 1), np.array([0, 1, 0], np.uint8), gz=gz)
    assert main(["data", "init", str(tmp_path / "i"), "--transpose"]) == 0
    assert declare.read(tmp_path / "i").info.shape == (1, 4, 5)
    opened = confirmed(tmp_path / "i").train._open()
    out = np.empty((3, 1, 4, 5), np.uint8)
    opened.records.read(np.arange(3), out)
    assert (out == x).all()


def confirmed(source: Path) -> Dataset:
    path = declare.path_for(source)
    path.write_text(path.read_text().replace("confirmed = false", "confirmed = true"))
    assert faults(source) == []
    return load(source)


# ---------------------------------------------------------------------- several labels an image


def test_several_labels_an_image_are_named_so_and_one_is_chosen(tmp_path: Path) -> None:
    y = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]])
    np.savez(tmp_path / "s.npz", x_train=pixels(4), y_train=y, x_test=pixels(4), y_test=1 - y)
    with pytest.raises(
        DataError, match=r"3 labels an image \(multi-label\); choose one column, label_from = \"y\[0\]\""
    ):
        init(tmp_path / "s.npz")
    with pytest.raises(DataError, match="or name a column that it has"):
        init(tmp_path / "s.npz", Reading(label_from="y[3]"))
    init(tmp_path / "s.npz", Reading(label_from="y[1]"))
    data = confirmed(tmp_path / "s.npz")
    assert data.info.classes == ("0", "1") and data.train._open().labels.tolist() == [1, 1, 0, 0]
    assert data.test._open().labels.tolist() == [0, 0, 1, 1]


def test_a_table_of_attributes_asks_which_and_takes_it(tmp_path: Path) -> None:
    root = tmp_path / "t"
    for i, x in enumerate(pixels(4)):
        png(root / f"{i}.png", x)
    (root / "labels.csv").write_text("file,Smiling,Male\n" + "".join(f"{i}.png,{i % 2},{i // 2}\n" for i in range(4)))
    with pytest.raises(DataError, match=r'--label-from\): one of "Smiling", "Male"'):
        init(root)
    with pytest.raises(DataError, match='no column "age", which label_from names; it has "file", "Smiling", "Male"'):
        init(root, Reading(label_from="age"))
    init(root, Reading(label_from="Male"))
    assert confirmed(root).train._open().labels.tolist() == [0, 0, 1, 1]
    out = prepare(root, tmp_path / "out")
    assert (out / "labels.csv").read_text().splitlines()[4].startswith("3.png,1,")


def test_celeba_drafts_the_attribute_that_is_asked_for(tmp_path: Path) -> None:
    root = celeba(tmp_path / "c")
    init(root, Reading(label_from="Smiling"))
    assert declare.read(root).info.classes == ("not Smiling", "Smiling")
    out = prepare(root, tmp_path / "out", reading=Reading(label_from="Smiling"))
    assert declare.read(out).info.classes == ("not Smiling", "Smiling")


# ---------------------------------------------------------------------- splits by other names


def test_train_val_and_test_folders_in_any_case(tmp_path: Path) -> None:
    root = tmp_path / "s"
    for split in ("Train", "VALIDATION", "test"):
        class_folder(root / split, pixels(4))
    init(root)
    data = confirmed(root)
    assert data.info.classes == ("cat", "dog") and len(data.train._open().labels) == 4
    assert len(data.test._open().labels) == 4
    assert any("4 images are in a validation part" in f and "left out" in f for f in faults(root, "note"))
    (root / "training").mkdir()
    with pytest.raises(DataError, match="Train/ and training/ are both the train split"):
        load(root).train.check()


def test_train_val_and_test_rows_in_any_case(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(6), split=["train", "val", "TEST"] * 2)
    init(root)
    data = confirmed(root)
    assert len(data.train._open().labels) == 2 and len(data.test._open().labels) == 2
    assert any("2 images are in a validation part" in f for f in faults(root, "note"))


def test_train_val_and_test_arrays(tmp_path: Path) -> None:
    arrays = {
        f"{s}_{k}": v
        for s in ("train", "val", "test")
        for k, v in (("images", pixels(4)[:, 0]), ("labels", np.array([[0], [1]] * 2)))
    }
    np.savez(tmp_path / "s.npz", **arrays)
    init(tmp_path / "s.npz")
    assert len(confirmed(tmp_path / "s.npz").train._open().labels) == 4
    assert [n for n in faults(tmp_path / "s.npz", "note") if "not used" in n] == []
    assert any("4 images are in a validation part" in f for f in faults(tmp_path / "s.npz", "note"))


# ---------------------------------------------------------------------- names


def test_every_printed_command_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path("it's a  set")
    class_folder(source, pixels(4))
    png(source / "cat" / "odd.png", pixels(1, (1, 9, 9))[0])
    with pytest.raises(DataError, match="run `veilset data init") as e:
        load(source)
    assert run_printed(str(e.value)) == 0
    confirm(source)
    (told,) = faults(source)
    assert "--size 5x4`" in told and run_printed(told) == 0
    assert len(list(Path("it's a  set-prepared").rglob("*.png"))) == 5


def run_printed(message: str) -> int:
    words = shlex.split(message.split("`")[1])
    assert words[:2] == ["veilset", "data"]
    return main(words[1:])


def test_names_that_are_not_utf8_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = os.fsdecode(b"caf\xe9")
    root = class_folder(tmp_path / "f", pixels(4))
    (root / bad).mkdir()
    table = table_folder(tmp_path / "t", pixels(4))
    confirm(table)
    png(table / "img" / f"{bad}.png", pixels(1)[0])
    inner = class_folder(tmp_path / "g", pixels(4))
    png(inner / "cat" / f"{bad}.png", pixels(1)[0])
    confirm(inner)
    named = tmp_path / bad
    class_folder(named, pixels(4))
    for words in (["init", root], ["check", table], ["check", inner], ["init", named], ["prepare", root, "--out", "x"]):
        assert main(["data", *map(str, words)]) == 2, words
        told = capfd.readouterr().err
        assert told.count("\n") == 1 and r"caf\xe9" in told and "is not UTF-8; rename it" in told
    assert not (root / "veilset.toml").exists() and not Path("x").exists()


def test_accents_written_in_two_ways_are_one_name(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    root = class_folder(tmp_path / "f", pixels(4), [apart, "dog"])
    confirm(root, classes=(composed, "dog"), units=4)
    assert faults(root) == [] and len(load(root).train._open().labels) == 4
    table = tmp_path / "t"
    for i, x in enumerate(pixels(2)):
        png(table / apart / f"{i}.png", x)
    (table / "labels.csv").write_text(f"file,label\n{composed}/0.png,{composed}\n{composed}/1.png,{apart}\n")
    confirm(table, classes=(apart,), units=2)
    assert faults(table) == [] and load(table).train._open().labels.tolist() == [0, 0]
    assert len(list(prepare(table, tmp_path / "out").rglob("*.png"))) == 2


def test_a_declaration_may_lie_elsewhere(tmp_path: Path) -> None:
    root = class_folder(tmp_path / "ro", pixels(6))
    own = tmp_path / "mine.toml"
    assert main(["data", "init", str(root), "--declaration", str(own)]) == 0
    assert not (root / "veilset.toml").exists()
    own.write_text(own.read_text().replace("confirmed = false", "confirmed = true"))
    assert main(["data", "check", str(root), "--declaration", str(own)]) == 0
    assert len(load(own).train._open().labels) == 6
    assert main(["plan", "dp-moments", "--data", str(own), "--epsilon", "10"]) == 0


def test_init_says_what_it_found_and_the_command_that_makes_it_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    deep_png(Path("my set/a/x.png"), deep_values(3))
    assert main(["data", "init", "my set"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("found 1 images, 1 class, 6 x 5, colour, 16 bits a channel\n")
    assert run_printed(told) == 0 and Path("my set-prepared/a/x.png").is_file()
    png(Path("large/a/x.png"), pixels(1, (1, 300, 200))[0])
    assert main(["data", "init", "large", "--json"]) == 0
    assert "veilset data prepare large --out large-prepared --size 64x64" in capsys.readouterr().out


def test_an_option_that_means_nothing_for_a_layout_is_refused(tmp_path: Path) -> None:
    root = class_folder(tmp_path / "s", pixels(4))
    with pytest.raises(DataError, match="label_from = 'x': says nothing about .* whose layout uses none of them"):
        init(root, Reading(label_from="x"))
    assert not (root / "veilset.toml").exists()


def test_prepare_of_arrays_never_loses_whose_images_are_whose(tmp_path: Path) -> None:
    source = tmp_path / "s.npz"
    np.savez(source, x=pixels(4), y=np.array([0, 1, 0, 1]), patient_id=np.array([7, 7, 8, 8]))
    with pytest.raises(DataError, match='array "patient_id" looks like people'):
        prepare(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    init(source)
    path = declare.path_for(source)
    text = (
        path.read_text()
        .replace('unit_column = ""', 'unit_column = "patient_id"')
        .replace('"one image"', '"one patient"')
    )
    path.write_text(text.replace("max_images_per_unit = 1", "max_images_per_unit = 2"))
    assert confirmed(prepare(source, tmp_path / "out")).train._open().units.tolist() == [0, 0, 1, 1]


def test_a_declaration_elsewhere_must_say_where_the_set_is(tmp_path: Path) -> None:
    root = class_folder(tmp_path / "s", pixels(6))
    confirm(root)
    own = tmp_path / "own.toml"
    own.write_text((root / "veilset.toml").read_text())
    with pytest.raises(DataError, match="does not say where the set is"):
        load(own)
    own.write_text(own.read_text() + 'source = "gone"\n')
    with pytest.raises(DataError, match="source = 'gone': there is no such file or folder"):
        load(own)
    own.write_text(own.read_text().replace('"gone"', '"s"'))
    assert len(load(own).train._open().labels) == 6
