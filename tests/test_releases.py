"""`open_release` and `Images.load`: every format is read back as it was written, and what is no release is refused."""

from __future__ import annotations

import builtins
import os
import shutil

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.core.errors import ConfigError, DataError, RunError, VeilsetError

FORMATS = ["folder", "npz", "parquet"]


@pytest.fixture(scope="module")
def model():
    data = vs.load("digits")
    return vs.synthesizers.DPMoments(basis_size=20, mc_samples=20).fit(data.train, vs.Privacy(1.0))


@pytest.fixture(scope="module")
def images(model):
    return model.sample(30, seed=1)


@pytest.fixture(scope="module")
def home(model, images, tmp_path_factory):
    root = tmp_path_factory.mktemp("releases")
    for f in FORMATS:
        model.write_samples(images, root / f, f)
        images.save(root / f"{f}-alone", f)
    return root


def same(a, b) -> bool:
    return torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and a.classes == b.classes


# ---------------------------------------------------------------------- open_release


@pytest.mark.parametrize("format", FORMATS)
def test_a_release_is_read_as_it_was_written(home, model, images, format) -> None:
    got = vs.open_release(str(home / format))
    assert isinstance(got, vs.ReleaseFolder) and same(got.images, images) and got.images is got.images
    assert got.images.label == "SYNTHETIC" and got.labels == images.y.tolist() and len(got) == 30
    assert got.receipt.epsilon == model.receipt_.epsilon and got.info == model.info_
    assert got.verify().ok and got.verify().release
    assert "30 images by dp-moments of digits: epsilon" in repr(got) and "not verified" in repr(got)


@pytest.mark.parametrize("format", FORMATS)
def test_it_is_a_dataset_for_torch(home, images, format) -> None:
    data = vs.open_release(home / format).to_dataset()
    assert isinstance(data, torch.utils.data.Dataset) and len(data) == 30
    x, y = data[7]
    assert x.dtype == torch.float32 and x.shape == (1, 8, 8) and type(y) is int
    assert torch.equal(x, images.x[7] / 255) and y == int(images.y[7])
    assert len(list(data)) == 30  # it ends, by IndexError
    batches = list(torch.utils.data.DataLoader(data, batch_size=16))  # noqa: TID251  # nothing private here
    assert [len(y) for _, y in batches] == [16, 14] and torch.equal(torch.cat([y for _, y in batches]), images.y)
    with pytest.raises(IndexError):
        data[30]


@pytest.mark.parametrize("format", FORMATS)
def test_it_is_a_table_for_arrow(home, images, format) -> None:
    import pyarrow.parquet as pq

    table = vs.open_release(home / format).to_arrow()
    assert table.equals(pq.read_table(home / "parquet" / "images.parquet")) and table.num_rows == 30
    assert table["label"].to_pylist() == images.y.tolist()


def without_pyarrow(monkeypatch) -> None:
    real = builtins.__import__

    def missing(name, *rest, **how):
        if name.split(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest, **how)

    monkeypatch.setattr(builtins, "__import__", missing)


def test_without_pyarrow_it_says_what_to_install(home, images, monkeypatch, tmp_path) -> None:
    without_pyarrow(monkeypatch)
    with pytest.raises(ConfigError, match=r"^to_arrow: needs pyarrow; pip install 'veilset\[parquet\]'$"):
        vs.open_release(home / "npz").to_arrow()
    with pytest.raises(ConfigError, match="^format = 'parquet': needs pyarrow"):
        images.save(tmp_path / "p", "parquet")
    assert not (tmp_path / "p").exists()
    for read in (vs.open_release, vs.Images.load):
        with pytest.raises(RunError, match="reading it needs pyarrow"):
            read(home / ("parquet" if read is vs.open_release else "parquet-alone"))


def test_images_are_decoded_when_they_are_asked_for(home, tmp_path) -> None:
    folder = shutil.copytree(home / "folder", tmp_path / "r")
    next(folder.glob("images/*/000003.png")).write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    got = vs.open_release(folder)
    assert len(got) == 30 and not got.verify().ok
    with pytest.raises(RunError, match="cannot be read"):
        _ = got.images


def test_what_is_no_release_says_so(model, images, tmp_path) -> None:
    research = vs.synthesizers.DPMoments(basis_size=20, mc_samples=20).fit(
        vs.load("digits").train, vs.Privacy(1.0), seed=1
    )
    got = vs.open_release(research.write_samples(research.sample(5), tmp_path / "r"))
    assert "NOT A RELEASE" in got.images.label and "NOT A RELEASE" in repr(got) and not got.verify().release


@pytest.mark.parametrize("what", ["absent", "empty", "a file", "no receipt", "a run", "a link inside"])
def test_another_folder_is_refused_in_one_line(home, model, tmp_path, what) -> None:
    path = tmp_path / "x"
    if what == "empty":
        path.mkdir()
    elif what == "a file":
        path.write_text("x")
    elif what == "no receipt":
        path = home / "folder-alone"
    elif what == "a run":
        model.save(path)
    elif what == "a link inside":
        shutil.copytree(home / "npz", path)
        os.rename(path / "receipt.json", tmp_path / "receipt.json")
        os.symlink(tmp_path / "receipt.json", path / "receipt.json")
    with pytest.raises(VeilsetError) as e:
        vs.open_release(path)
    named = "receipt.json is a link" if what == "a link inside" else path.name
    assert "\n" not in str(e.value) and named in str(e.value)


# ---------------------------------------------------------------------- Images.load


@pytest.mark.parametrize("format", FORMATS)
def test_saved_images_load(home, images, format) -> None:
    got = vs.Images.load(home / f"{format}-alone")
    assert same(got, images) and not got.reads_private
    assert vs.Images.load(str(home / f"{format}-alone"), classes=list("abcdefghij")).classes == tuple("abcdefghij")


def colours(labels, classes):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (len(labels), 3, 5, 7), generator=g, dtype=torch.uint8)
    return vs.Images(x, torch.tensor(labels), classes)


@pytest.mark.parametrize("format", FORMATS)
def test_colours_and_sides_are_kept(tmp_path, format) -> None:
    images = colours([1, 0, 1], ("cat", "dog"))
    assert same(vs.Images.load(images.save(tmp_path / "a", format)), images)


@pytest.mark.parametrize("format", FORMATS)
def test_a_class_without_images(tmp_path, format) -> None:
    """npz names all classes; the others only those that have images."""
    names = ("cat", "dog", "owl")
    last, middle = colours([0, 1], names), colours([0, 2], names)
    a, b = last.save(tmp_path / "a", format), middle.save(tmp_path / "b", format)
    assert vs.Images.load(a).classes == (names if format == "npz" else names[:2])
    assert same(vs.Images.load(a, classes=names), last) and same(vs.Images.load(b, classes=names), middle)
    if format != "npz":
        with pytest.raises(RunError, match=r"no image is of class 1, so that its name is unknown; give classes"):
            vs.Images.load(b)


@pytest.mark.parametrize(
    ("classes", "kind", "word"),
    [
        ("abcdefghij", DataError, "must be a list of names"),
        ([1, 2], DataError, "must be a list of names"),
        (["a"] * 10, DataError, "distinct names"),
        ([], DataError, "one or more distinct names"),
        (["a", "b"], RunError, "a label is .*, and there are 2 classes"),
    ],
)
def test_wrong_classes_are_refused(home, classes, kind, word) -> None:
    with pytest.raises(kind, match=word) as e:
        vs.Images.load(home / "npz-alone", classes=classes)
    assert "\n" not in str(e.value)


def npz(path, **arrays):
    np.savez(path / "images.npz", **arrays)


X, Y = np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.int64)


@pytest.mark.parametrize(
    "write",
    [
        lambda p: None,
        lambda p: (p / "labels.csv").write_text("file,label,class\n"),
        lambda p: (p / "labels.csv").write_text("file,label,class\n../x.png,0,a\n"),
        lambda p: (p / "labels.csv").write_text("file,label,class\nx.png,0,a\n"),
        lambda p: (p / "labels.csv").write_text("a,b\n1,2\n"),
        lambda p: [
            (p / "labels.csv").write_text("file,label,class\nx.png,0,a\n"),
            (p / "x.png").write_bytes(b"GIF89a"),
        ],
        lambda p: (p / "images.npz").write_bytes(b"PK"),
        lambda p: npz(p, x=X, y=Y),
        lambda p: npz(p, x=X[0], y=Y, classes=np.array(["a"])),
        lambda p: npz(p, x=X, y=Y, classes=np.array([1])),
        lambda p: npz(p, x=X, y=Y, classes=np.array(["a", "a"])),
        lambda p: npz(p, x=X, y=Y, classes=np.array([], dtype="U1")),
        lambda p: npz(p, x=X.astype(float), y=Y, classes=np.array(["a"])),
        lambda p: npz(p, x=np.zeros((1, 1, 1, 5000), np.uint8), y=Y[:1], classes=np.array(["a"])),
        lambda p: npz(p, x=X, y=Y, classes=np.array(["a"], dtype=object)),
        lambda p: (p / "images.parquet").write_bytes(b"PAR1"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(tmp_path, write) -> None:
    write(tmp_path)
    with pytest.raises(RunError) as e:
        vs.Images.load(tmp_path)
    assert "\n" not in str(e.value)


def test_two_names_for_a_label_are_refused(tmp_path) -> None:
    folder = colours([0, 0], ("cat",)).save(tmp_path / "a")
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("000001.png,0,cat", "000001.png,0,dog"))
    with pytest.raises(RunError, match="label 0 is called 'cat' and 'dog'"):
        vs.Images.load(folder)


@pytest.mark.parametrize("format", FORMATS)
def test_a_release_is_not_loaded_without_its_stamp(home, format) -> None:
    with pytest.raises(RunError, match=r"a release, whose claim and stamp would be lost; use veilset\.open_release"):
        vs.Images.load(home / format)


def test_an_absent_folder_is_refused(tmp_path) -> None:
    with pytest.raises(RunError, match="no images here"):
        vs.Images.load(tmp_path / "nowhere")
