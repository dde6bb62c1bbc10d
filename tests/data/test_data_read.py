"""Every reader gives back exactly what was written; loading reads nothing; what is private stays opaque."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from small_sets import class_folder, confirm, idx_pair, pixels, png, table_folder

from veilset.core.errors import DataError, ModeError
from veilset.core.types import Images
from veilset.data import load
from veilset.data.load import Dataset
from veilset.data.records import FileRecords, Spool, dense, small_ints
from veilset.privacy.private import Opened, PrivateImages


def open_it(images: object) -> tuple[np.ndarray, Opened]:
    """What the gate would get: all pixels, and the rest. Tests may look; the library may not."""
    assert isinstance(images, PrivateImages)
    got = images._open()
    x = np.empty((got.records.count, *images.info.shape), got.records.dtype)
    got.records.read(np.arange(got.records.count), x)
    return x, got


SHAPES = [(1, 5, 4), (3, 5, 4), (1, 20, 13), (3, 64, 64), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_class_folder(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    x = pixels(6, shape)
    root = class_folder(tmp_path / "s", x)
    confirm(root, shape=shape)
    got, o = open_it(load(root).train)
    assert (got == x[[0, 2, 4, 1, 3, 5]]).all()
    assert o.labels.tolist() == [0, 0, 0, 1, 1, 1] and o.labels.dtype == np.uint8 and o.units is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gz", [False, True])
def test_idx(tmp_path: Path, shape: tuple[int, int, int], gz: bool) -> None:
    x, y = pixels(6, shape), np.array([0, 1, 1, 0, 1, 0], np.uint8)
    root = idx_pair(tmp_path / "s", "train", x[:, 0] if shape[0] == 1 else x, y, gz)
    idx_pair(root, "t10k", pixels(2, (1, 5, 4))[:, 0], y[:2])
    confirm(root, shape=shape)
    got, o = open_it(load(root).train)
    assert (got == x).all() and (o.labels == y).all()


def test_idx_by_prefix_and_by_file(tmp_path: Path) -> None:
    x, y = pixels(6)[:, 0], np.array([0, 1] * 3, np.uint8)
    root = idx_pair(tmp_path / "s", "letters-train", x, y)
    idx_pair(root, "letters-test", x[:3], y[:3])
    idx_pair(root, "other-train", x[:2], y[:2])
    for source, tests in ((root / "letters", True), (root / "letters-train-images-idx3-ubyte", False)):
        confirm(source)
        data = load(source)
        assert (open_it(data.train)[0][:, 0] == x).all()
        assert (data.test is not None) == tests
    confirm(root)
    with pytest.raises(DataError, match="name one by its prefix"):
        open_it(load(root).train)


LAYOUTS = {"nhw": (1, 20, 13), "nchw": (3, 20, 13), "nhwc": (3, 20, 13), "nhw1": (1, 20, 13)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_npz(tmp_path: Path, layout: str, packed: bool) -> None:
    shape = LAYOUTS[layout]
    x = pixels(6, shape)
    stored = x[:, 0] if layout == "nhw" else x if layout == "nchw" else x.transpose(0, 2, 3, 1)
    path = tmp_path / "s.npz"
    (np.savez_compressed if packed else np.savez)(path, x=np.ascontiguousarray(stored), y=np.array([0, 1] * 3))
    confirm(path, shape=shape)
    got, o = open_it(load(path).train)
    assert got.dtype == np.uint8 and (got == x).all() and o.labels.tolist() == [0, 1] * 3


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4"])
def test_npz_of_floats_is_float32(tmp_path: Path, kind: str) -> None:
    x = (pixels(6).astype(np.float64) / 256 - 0.5).astype(kind)
    path = tmp_path / "s.npz"
    np.savez(path, x=x, y=np.array([0, 1] * 3))
    confirm(path, value_range=(-0.5, 0.5))
    got, _ = open_it(load(str(path)).train)
    assert got.dtype == np.float32 and (got == x.astype(np.float32)).all()


def test_npz_names_units_and_test_split(tmp_path: Path) -> None:
    x, path = pixels(6), tmp_path / "s.npz"
    y, unit = np.array(["dog", "cat"] * 3), np.array(["p9", "p1", "p9", "p3", "p1", "p9"])
    np.savez(path, x=x, y=y, unit=unit, x_test=x[:2], y_test=np.array([[0], [1]]), unit_test=np.array(["q", "r"]))
    confirm(path, units=3, unit="one patient", max_images_per_unit=3)
    data = load(path)
    _, o = open_it(data.train)
    assert o.labels.tolist() == [1, 0] * 3 and o.units is not None
    assert o.units.tolist() == [0, 1, 0, 2, 1, 0] and o.units.dtype == np.int32
    assert isinstance(data.test, PrivateImages) and (open_it(data.test)[0] == x[:2]).all()
    np.savez(path, x=x, y=y, unit=np.array([7, -7, 7, 1, 1, 0]))
    assert open_it(load(path).train)[1].units.tolist() == [0, 1, 0, 2, 2, 3]  # type: ignore[union-attr]


def test_table_with_split_and_units(tmp_path: Path) -> None:
    x = pixels(6, (3, 20, 13))
    split, unit = ["train", "test", "train", "train", "test", "train"], ["b", "z", "a", "b", "z", "a"]
    root = table_folder(tmp_path / "s", x, split=split, unit=unit)
    confirm(root, shape=(3, 20, 13), units=2, unit="one patient", max_images_per_unit=2)
    data = load(root)
    got, o = open_it(data.train)
    assert (got == x[[0, 2, 3, 5]]).all() and o.labels.tolist() == [0, 0, 1, 1]
    assert o.units is not None and o.units.tolist() == [0, 1, 0, 1]
    assert data.test is data.test and (open_it(data.test)[0] == x[[1, 4]]).all()


def test_train_and_test_folders(tmp_path: Path) -> None:
    x = pixels(6)
    class_folder(tmp_path / "s" / "train", x)
    class_folder(tmp_path / "s" / "test", x[:2])
    confirm(tmp_path / "s")
    data = load(tmp_path / "s")
    assert open_it(data.train)[1].records.count == 6
    assert isinstance(data.test, PrivateImages) and (open_it(data.test)[0] == x[:2]).all()


def test_declared_public_test_split_can_be_looked_at(tmp_path: Path) -> None:
    x, path = pixels(6).astype(np.float32) / 255 * 4 - 2, tmp_path / "s.npz"
    np.savez(path, x=x, y=np.array([0, 1] * 3), x_test=x[:4], y_test=np.array([0, 1] * 2))
    confirm(path, value_range=(-2.0, 2.0), access="public")
    test = load(path).test
    assert isinstance(test, Images) and (test.x.numpy() == pixels(6)[:4]).all()
    assert "PUBLIC" in test.label and not test.reads_private
    data = load(path)
    assert data.public_test() is data.test


def test_a_private_or_absent_test_split_is_not_a_public_one(tmp_path: Path) -> None:
    x = pixels(6)
    class_folder(tmp_path / "s" / "train", x)
    class_folder(tmp_path / "s" / "test", x[:2])
    confirm(tmp_path / "s")
    with pytest.raises(ModeError, match="^the test split of .* is private: it may not be looked at; declare"):
        load(tmp_path / "s").public_test()
    np.savez(tmp_path / "alone.npz", x=x, y=np.array([0, 1] * 3))
    confirm(tmp_path / "alone.npz")
    with pytest.raises(DataError, match="has no test split; add one"):
        load(tmp_path / "alone.npz").public_test()


def test_released_folder_loads(tmp_path: Path) -> None:
    import torch

    images = Images(torch.from_numpy(pixels(6)), torch.tensor([0, 1] * 3), ("cat", "dog"))
    root = images.save(tmp_path / "release")
    confirm(root)
    got, o = open_it(load(root).train)
    assert (got == pixels(6)).all() and o.labels.tolist() == [0, 1] * 3


def test_loading_touches_no_record(tmp_path: Path) -> None:
    """Only the declaration is read: the records may even be unreadable or gone."""
    root = tmp_path / "s"
    png(root / "cat" / "a.png", pixels(1)[0])
    (root / "cat" / "a.png").write_bytes(b"broken")
    confirm(root)
    data = load(root)
    assert data.name == "pets" and data.info.units == 6 and data.test is None
    with pytest.raises(DataError, match=r"cat/a\.png: cannot be decoded"):
        data.train._open()
    (tmp_path / "x.npz").write_bytes(b"broken")
    confirm(tmp_path / "x.npz")
    assert load(tmp_path / "x.npz").info.classes == ("cat", "dog")


def test_opaque(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, x=pixels(6), y=np.array([0, 1] * 3), x_test=pixels(2), y_test=np.array([0, 1]))
    confirm(path)
    data = load(path)
    for images in (data.train, data.test):
        for look in (len, iter, list, copy.copy, copy.deepcopy, np.asarray, lambda i: i[0], lambda i: 0 in i):
            with pytest.raises(ModeError):
                look(images)  # type: ignore[operator]
    data.train._open()
    assert repr(data) == "Dataset('pets', declared: 6 units, 2 classes, shape [1, 5, 4])"
    assert "6 units" in repr(data.train)
    assert not hasattr(data, "__dict__") and isinstance(data, Dataset)


@pytest.mark.parametrize("outlier", ["value", "class", "size"])
def test_an_outlier_changes_no_declared_fact(tmp_path: Path, outlier: str) -> None:
    """A new record may be refused, but it never moves what is public."""
    path = tmp_path / "s.npz"
    confirm(path, value_range=(0.0, 255.0))
    np.savez(path, x=pixels(6).astype(np.float32), y=np.array([0, 1] * 3))
    before = load(path).info
    load(path).train._open()
    x, y = pixels(7).astype(np.float32), np.array([0, 1] * 3 + [0])
    if outlier == "value":
        x[6, 0, 0, 0] = 300
    elif outlier == "class":
        y[6] = 2
    else:
        x = pixels(7, (1, 6, 6)).astype(np.float32)
    np.savez(path, x=x, y=y)
    assert load(path).info == before
    with pytest.raises(DataError):
        load(path).train._open()


def test_reads_any_index_into_any_buffer(tmp_path: Path) -> None:
    x = pixels(50, (3, 5, 4))
    spool = Spool((3, 5, 4), np.uint8)
    spool.append(x[:30])
    spool.append(x[30:])
    records = spool.records()
    assert isinstance(records, FileRecords) and records.count == 50
    for index in ([], [0], [49], [0, 1, 2, 7, 8, 20, 49], list(range(50)), [3, 3, 4]):
        i = np.array(index, np.int64)
        for out in (np.empty((len(i), 3, 5, 4), np.uint8), np.empty((len(i), 3, 5, 4), np.float32)):
            records.read(i, out)
            assert (out == x[i]).all()
    wide = np.zeros((4, 3, 5, 8), np.uint8)
    records.read(np.arange(4), wide[..., ::2])
    assert (wide[..., ::2] == x[:4]).all() and not wide[..., 1::2].any()
    for bad in ([50], [-1]):
        with pytest.raises(IndexError):
            records.read(np.array(bad), np.empty((1, 3, 5, 4), np.uint8))


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    root = idx_pair(tmp_path / "s", "train", pixels(6)[:, 0], np.zeros(6, np.uint8))
    confirm(root)
    got = load(root).train._open()
    os.truncate(root / "train-images-idx3-ubyte", 60)
    with pytest.raises(DataError, match="shorter"):
        got.records.read(np.arange(6), np.empty((6, 1, 5, 4), np.uint8))


def test_nothing_with_a_name_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded images lie in files without a name, even while they are in use."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    root = idx_pair(tmp_path / "s", "train", pixels(6)[:, 0], np.zeros(6, np.uint8), gz=True)
    confirm(root)
    before = sorted(p.name for p in root.iterdir())
    _, held = open_it(load(root).train)
    assert held.records.count == 6
    assert not list(scratch.iterdir()) and sorted(p.name for p in root.iterdir()) == before


def test_full_disk_while_decoding_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, x=pixels(6), y=np.array([0, 1] * 3))
    confirm(path)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    with pytest.raises(DataError, match="TMPDIR") as e:
        load(path).train._open()
    assert "\n" not in str(e.value)


def test_ids_and_labels_are_small() -> None:
    assert dense(np.array([9, 3, 9, 1], np.uint64)).tolist() == [0, 1, 0, 2]
    assert dense(np.zeros(0, np.uint64)).dtype == np.int32
    assert [small_ints([0], top).dtype.itemsize for top in (2, 256, 257, 32768, 32769)] == [1, 1, 2, 2, 4]


# VmHWM is the peak of this process alone; getrusage's ru_maxrss would start at the peak of the test process.
MEASURE = """
import re, sys
import numpy as np
from veilset.data import load

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

start = peak()
o = load(sys.argv[1]).train._open()
out = np.empty((1024, 1, 28, 28), o.records.dtype)
for i in range(0, o.records.count - 1023, 1024):
    o.records.read(np.arange(i, i + 1024), out)
print(peak() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("kind", ["idx", *(pytest.param(k, marks=pytest.mark.long) for k in ("gz", "npz"))])
def test_memory_does_not_grow_with_the_set(tmp_path: Path, kind: str) -> None:
    """100,000 images of 28x28 are 78 MB; reading them all may take 40 MB of buffers and labels, not 78."""
    n = 100_000
    x, y = np.zeros((n, 28, 28), np.uint8), np.zeros(n, np.uint8)
    if kind == "npz":
        source = tmp_path / "s.npz"
        np.savez(source, x=x, y=y, unit=np.arange(n).astype("U8"))
    else:
        source = idx_pair(tmp_path / "s", "train", x, y, gz=kind == "gz")
    confirm(source, shape=(1, 28, 28), units=n)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(source)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40_000, "KiB of growth"
