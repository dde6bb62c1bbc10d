"""Every bad input gets one clear line from `check`, and `load(...).train` refuses to open for the same reason."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import class_folder, confirm, idx_bytes, idx_pair, pixels, png, table_folder

from veilset.core.errors import DataError
from veilset.data import Fault, check, load


def faults(source: Path) -> list[str]:
    """The faults as lines; every one must be one line, and the first must keep the set closed."""
    found = [f for f in check(source) if f.severity == "fault"]
    lines = [str(f) for f in found]
    assert all("\n" not in line and "; " in line for line in lines)
    if lines:
        with pytest.raises(DataError) as e:
            load(source).train._open()
        assert "\n" not in str(e.value)
    else:
        load(source).train._open()
    return lines


def notes(source: Path) -> list[Fault]:
    return [f for f in check(source) if f.severity == "note"]


def test_a_good_set_has_no_fault(pets: Callable[..., Path]) -> None:
    assert check(pets()) == []
    assert check("digits") == []


def test_truncated_png(pets: Callable[..., Path]) -> None:
    root = pets()
    whole = (root / "cat" / "000.png").read_bytes()
    (root / "cat" / "000.png").write_bytes(whole[: len(whole) // 2])
    (root / "cat" / "002.png").write_bytes(whole[:-8])
    (root / "dog" / "001.png").write_bytes(b"")
    (root / "dog" / "003.png").write_bytes(b"<html>not a picture</html>" * 9)
    lines = faults(root)
    assert [line.split(":")[0] for line in lines] == ["cat/000.png", "cat/002.png", "dog/001.png", "dog/003.png"]
    with pytest.raises(DataError, match=r"cat/000\.png: truncated.*and 3 more; run `veilset data check"):
        load(root).train._open()


def save(mode: str, path: Path, suffix_mode: str | None = None) -> None:
    """A 4x5 picture of one Pillow mode."""
    Image.new(suffix_mode or mode, (4, 5)).save(path)


def png_16_bit_rgb(path: Path) -> None:
    """Pillow cannot write 16-bit colour, and reads it as 8-bit without a word."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + bytes(4 * 6)) * 5)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("name", "write", "word"),
    [
        ("a.png", lambda p: save("I;16", p), "16 bits"),
        ("a.tif", lambda p: save("I;16", p), "16 bits"),
        ("a.pgm", lambda p: p.write_bytes(b"P5 4 5 65535 " + bytes(40)), "16 bits"),
        ("a.ppm", lambda p: p.write_bytes(b"P6 4 5 65535 " + bytes(120)), "16 bits"),
        ("a.tif", lambda p: save("F", p), "16 bits"),
        ("a.png", png_16_bit_rgb, "16 bits"),
        ("a.jpg", lambda p: save("CMYK", p), "CMYK"),
        ("a.png", lambda p: save("P", p), "palette"),
        ("a.png", lambda p: save("LA", p), "alpha"),
        ("a.png", lambda p: save("RGBA", p), "alpha"),
        ("a.png", lambda p: save("1", p), "black and white"),
        ("a.png", lambda p: Image.new("L", (4, 5)).save(p, transparency=0), "transparent"),
        ("a.png", lambda p: save("RGB", p), "RGB"),
        ("a.png", lambda p: png(p, pixels(1, (1, 5, 6))[0]), "5x6"),
    ],
)
def test_pictures_that_point_to_prepare(
    pets: Callable[..., Path], name: str, write: Callable[[Path], None], word: str
) -> None:
    root = pets()
    write(root / "cat" / name)
    (line,) = faults(root)
    assert f"cat/{name}" in line and word in line and "veilset data prepare" in line


def test_several_pictures_in_one_file(pets: Callable[..., Path]) -> None:
    root = pets()
    Image.new("L", (4, 5)).save(root / "cat" / "a.tif", save_all=True, append_images=[Image.new("L", (4, 5))])
    assert "several pictures" in faults(root)[0]


def test_classes_and_strays_in_folders(pets: Callable[..., Path]) -> None:
    root = pets()
    png(root / "bird" / "a.png", pixels(1)[0])
    png(root / "a.png", pixels(1)[0])
    png(root / "cat" / "deep" / "a.png", pixels(1)[0])
    (root / "cat" / "read.me").write_text("x")
    (root / "cat" / ".DS_Store").write_text("x")
    text = "\n".join(faults(root))
    for part in ("bird/: class is not declared", "a.png: label is missing", "cat/deep/:", "cat/read.me:"):
        assert part in text
    assert ".DS_Store" not in text


def test_declared_class_without_folder_is_a_note(pets: Callable[..., Path]) -> None:
    root = pets(classes=("cat", "cow", "dog"))
    assert not faults(root) and "cow/" in str(notes(root)[0])
    assert load(root).train._open().labels.tolist() == [0, 0, 0, 2, 2, 2]


def test_table(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(6))
    confirm(root)
    assert check(root) == []
    png(root / "img" / "extra.png", pixels(1)[0])
    with open(root / "labels.csv", "a") as f:
        f.write("img/gone.png,cat\nimg/000.png,cat\nimg/001.png\n../x.png,cat\n/etc/x.png,cat\nimg/extra2.png,\n,cat\n")
        f.write("img/extra3.png,bird\n")
    text = "\n".join(faults(root))
    for part in (
        "img/extra.png: label is missing: no row in labels.csv",
        "line 8: img/gone.png: no such file",
        "line 9: img/000.png is listed twice",
        "line 10: has 1 cells for 2 columns",
        "line 11: file '../x.png' is not a path inside",
        "line 12: file '/etc/x.png' is not a path inside",
        "line 13: label is missing",
        "line 14: file '' is not",
        "line 15: class 'bird' is not declared",
    ):
        assert part in text, part


@pytest.mark.parametrize("head", ["", "name,label", "file", "file,label,label", "file,split"])
def test_table_without_its_columns(tmp_path: Path, head: str) -> None:
    root = table_folder(tmp_path / "s", pixels(2))
    confirm(root)
    (root / "labels.csv").write_text(head + "\n")
    assert "it must name the columns file,label" in faults(root)[0]


def test_table_that_is_not_text(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(2))
    confirm(root)
    (root / "labels.csv").write_bytes(b"file,label\n\xff\xfe,cat\n")
    assert "cannot be read" in faults(root)[0]
    (root / "labels.csv").write_text("\ufefffile,label\nimg/000.png,cat\nimg/001.png,dog\n", encoding="utf-8")
    assert not faults(root)


def test_units_in_a_table(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(6), split=["train"] * 5 + ["test"], unit=["a", "a", "a", "b", "c", "d"])
    confirm(root, units=3, unit="one patient", max_images_per_unit=2)
    assert not faults(root)
    (note,) = notes(root)
    assert "1 units have more than the declared max_images_per_unit = 2" in str(note)
    confirm(root, units=40, unit="one patient", max_images_per_unit=3)
    assert "holds 3 units, declared are 40" in str(notes(root)[0])
    confirm(root, units=3)
    assert any("say what a unit is" in str(n) for n in notes(root))
    table_folder(root, pixels(6), split=["train"] * 5 + ["test"], unit=["a", "a", "a", "b", "c", "a"])
    assert faults(root) == ["labels.csv line 7: its unit is in both splits; give all images of a unit to one split"]
    table_folder(root, pixels(6), split=["train"] * 5 + ["tset"], unit=["a", "a", "", "b", "c", "a"])
    text = "\n".join(faults(root))
    assert "line 4: unit is missing" in text and "line 7: split 'tset'" in text


def test_declared_units_need_ids(pets: Callable[..., Path]) -> None:
    assert "no column is the unit" in faults(pets(max_images_per_unit=3, unit="one patient"))[0]


def test_declared_unit_without_ids_is_a_note(pets: Callable[..., Path]) -> None:
    root = pets(unit="one patient")
    assert not faults(root) and "each image counts as one" in str(notes(root)[0])


def npz(path: Path, **arrays: np.ndarray) -> Path:
    confirm(path)
    base = {"x": pixels(6), "y": np.array([0, 1] * 3)}
    np.savez(path, **{**base, **arrays})
    return path


BAD_ARRAYS = [
    ({"x": np.full((6, 5, 4), np.nan, np.float32)}, "array x record 0: holds NaN or infinity"),
    ({"x": np.array([0.0] * 119 + [np.inf]).reshape(6, 5, 4)}, "array x record 5: holds NaN or infinity"),
    ({"x": np.array([0.0] * 119 + [1e300]).reshape(6, 5, 4)}, "array x record 5: holds NaN or infinity"),
    ({"x": np.array([0.0] * 119 + [300.0]).reshape(6, 5, 4)}, "array x record 5: holds a value outside"),
    ({"x": np.zeros((6, 5, 4), np.int64)}, "array x: wrong dtype int64"),
    ({"x": np.zeros((6, 5, 4), np.uint16)}, "array x: wrong dtype uint16"),
    ({"x": np.zeros((6, 5, 4), bool)}, "array x: wrong dtype bool"),
    ({"x": np.zeros((6, 5, 4), complex)}, "array x: wrong dtype complex128"),
    ({"x": np.zeros((6, 4, 5), np.uint8)}, "array x: images are [4, 5]"),
    ({"x": np.zeros(6, np.uint8)}, "array x: images are []"),
    ({"x": np.zeros((), np.uint8)}, "array x: images are []"),
    ({"x": np.asfortranarray(np.zeros((6, 5, 4), np.uint8))}, "array x: is stored column by column"),
    ({"x": np.array([[1], None] * 3, object)}, "array x: holds Python objects"),
    ({"y": np.array([[1], None] * 3, object)}, "array y: holds Python objects"),
    ({"y": np.array([0, 1, 0, 1, 0, 2])}, "array y record 5: label 2 is not one of the 2"),
    ({"y": np.array([0, 1, 0, 1, 0, -1])}, "array y record 5: label -1"),
    ({"y": np.array(["cat", "dog", "cow"] * 2)}, "array y record 2: class 'cow' is not declared"),
    ({"y": np.zeros(6)}, "array y: wrong dtype float64"),
    ({"y": np.zeros((6, 2), int)}, "array y: has shape [6, 2]"),
    ({"y": np.zeros(5, int)}, "array y: 5 entries for 6 images: missing"),
    ({"y": np.zeros(7, int)}, "array y: 7 entries for 6 images: extra"),
    ({"unit": np.zeros(5, int)}, "array unit: 5 entries for 6 images: missing"),
    ({"unit": np.array([None] * 6, object)}, "array unit: holds Python objects"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS)
def test_npz_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    assert faults(npz(tmp_path / "s.npz", **arrays))[0].startswith(message)


def test_all_bad_records_are_found(tmp_path: Path) -> None:
    x = np.zeros((6, 5, 4), np.float32)
    x[[1, 3, 4], 0, 0] = np.nan, 256, -1
    path = npz(tmp_path / "s.npz", x=x, y=np.array([0, 9, 0, 0, 0, 0]))
    assert [line.split(":")[0] for line in faults(path)] == [f"array x record {i}" for i in (1, 3, 4)] + [
        "array y record 1"
    ]


def test_npz_units_in_both_splits(tmp_path: Path) -> None:
    both = {"unit": np.arange(6), "x_test": pixels(2), "y_test": np.array([0, 1]), "unit_test": np.array([5, 6])}
    assert faults(npz(tmp_path / "s.npz", **both))[0].startswith("array unit: 1 units are in both splits")


@pytest.mark.parametrize("cut", [0, 10, 200, 500, -1, -30])
def test_npz_cut_short(tmp_path: Path, cut: int) -> None:
    path = npz(tmp_path / "s.npz")
    path.write_bytes(path.read_bytes()[:cut])
    assert "cut short" in faults(path)[0]


def test_npz_damaged_inside(tmp_path: Path) -> None:
    path = npz(tmp_path / "s.npz")
    whole = path.read_bytes()
    at = whole.index(pixels(6).tobytes()) + 7
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "array x: damaged" in faults(path)[0]
    header = whole.index(b"{'descr'")
    path.write_bytes(whole[:header] + b"(" + whole[header + 1 :])
    assert "array x: damaged" in faults(path)[0]


def test_npz_with_a_header_that_lies(tmp_path: Path) -> None:
    """Neither a header of a billion rows nor bytes behind the last row get through."""
    for shape, word in (((10**9, 5, 4), "cut short"), ((5, 5, 4), "trailing bytes")):
        path = tmp_path / "s.npz"
        confirm(path)
        data = io.BytesIO()
        np.lib.format.write_array_header_1_0(data, {"descr": "|u1", "fortran_order": False, "shape": shape})
        labels = io.BytesIO()
        np.save(labels, np.array([0, 1] * 3))
        with zipfile.ZipFile(path, "w") as z:
            z.writestr("x.npy", data.getvalue() + pixels(6).tobytes())
            z.writestr("y.npy", labels.getvalue())
        assert word in faults(path)[0]


def test_npz_without_its_arrays(tmp_path: Path) -> None:
    confirm(tmp_path / "s.npz")
    np.savez(tmp_path / "s.npz", pictures=pixels(6))
    assert "no arrays x and y" in faults(tmp_path / "s.npz")[0]


def idx(tmp_path: Path, gz: bool = False) -> Path:
    root = idx_pair(tmp_path / "s", "train", pixels(6)[:, 0], np.array([0, 1] * 3, np.uint8), gz)
    confirm(root)
    return root


X, Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize("name", [X, Y])
@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("cut", [0, 2, 6, -1])
def test_idx_cut_short(tmp_path: Path, name: str, gz: bool, cut: int) -> None:
    root = idx(tmp_path, gz)
    path = root / (name + ".gz" * gz)
    whole = gzip.decompress(path.read_bytes()) if gz else path.read_bytes()
    path.write_bytes(gzip.compress(whole[:cut]) if gz else whole[:cut])
    assert faults(root)[0].startswith(f"{path.name}: {'not an IDX file' if cut in (0, 2) else 'cut short'}")


@pytest.mark.parametrize("name", [X, Y])
@pytest.mark.parametrize("gz", [False, True])
def test_idx_trailing_bytes(tmp_path: Path, name: str, gz: bool) -> None:
    root = idx(tmp_path, gz)
    path = root / (name + ".gz" * gz)
    whole = gzip.decompress(path.read_bytes()) if gz else path.read_bytes()
    path.write_bytes(gzip.compress(whole + b"x") if gz else whole + b"x")
    assert "trailing bytes" in faults(root)[0]


def test_idx_compressed_stream_is_checked(tmp_path: Path) -> None:
    root = idx(tmp_path, gz=True)
    path = root / f"{X}.gz"
    whole = path.read_bytes()
    for broken in (whole[:-9], whole[:-3], whole[:-8] + bytes(8), whole + b"more", b"plain"):
        path.write_bytes(broken)
        assert any(w in faults(root)[0] for w in ("cut short", "damaged"))


def test_idx_contents(tmp_path: Path) -> None:
    root = idx(tmp_path)
    for name, data, message in (
        (Y, idx_bytes(np.array([0, 1, 0, 1, 0, 2], np.uint8)), "record 5: label 2 is not one of"),
        (Y, idx_bytes(np.zeros(5, np.uint8)), "5 labels for 6 images: labels are missing"),
        (Y, idx_bytes(np.zeros(7, np.uint8)), "7 labels for 6 images: labels are extra"),
        (Y, idx_bytes(np.zeros((6, 1), np.uint8)), "has 2 axes"),
        (X, idx_bytes(pixels(6, (1, 4, 5))[:, 0]), "images are [1, 4, 5], declared shape is [1, 5, 4]"),
        (X, b"\0\0\x0d\x03" + idx_bytes(pixels(6)[:, 0])[4:], "wrong dtype float32"),
        (X, b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 5, 4) + bytes(120), "cut short: 6 of 4294967295"),
    ):
        good = (root / name).read_bytes()
        (root / name).write_bytes(data)
        assert message in faults(root)[0]
        (root / name).write_bytes(good)
    confirm(root, value_range=(0.0, 15.0))
    assert "outside the declared value_range [0, 15]" in faults(root)[0]


def test_idx_without_labels_or_training_pair(tmp_path: Path) -> None:
    root = idx(tmp_path)
    (root / Y).unlink()
    with pytest.raises(DataError, match="labels are missing"):
        check(root)
    (root / X).rename(root / "t10k-images-idx3-ubyte")
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(6, np.uint8)))
    with pytest.raises(DataError, match="no training pair"):
        check(root)


def test_the_test_split_is_checked_too(tmp_path: Path) -> None:
    class_folder(tmp_path / "s" / "train", pixels(6))
    class_folder(tmp_path / "s" / "test", pixels(2))
    confirm(tmp_path / "s")
    assert check(tmp_path / "s") == []
    png(tmp_path / "s" / "test" / "cat" / "big.png", pixels(1, (1, 9, 9))[0])
    (fault,) = check(tmp_path / "s")
    assert str(fault).startswith("test/cat/big.png: is 9x9")


def test_unreadable_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = idx(tmp_path)

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("veilset.data.formats.idx._stream", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        check(root)
    with pytest.raises(DataError, match="Permission denied"):
        load(root).train._open()
