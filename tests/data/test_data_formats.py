"""The forms of hubs and archives: each through init, check, prepare and load, and what is wrong with it in one line."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_sets import class_folder, pixels, png, table_folder

from veilset.cli.main import main
from veilset.core.errors import DataError
from veilset.data import Dataset, check, declare, init, load, prepare
from veilset.data.reading import Reading


def faults(root: Path, severity: str = "fault") -> list[str]:
    return [str(f) for f in check(root) if f.severity == severity]


def confirmed(source: Path) -> Dataset:
    path = declare.path_for(source)
    path.write_text(path.read_text().replace("confirmed = false", "confirmed = true"))
    assert faults(source) == []
    return load(source)


def values(data: Any) -> np.ndarray:
    opened = data._open()
    out = np.empty((opened.records.count, *data.info.shape), np.uint8)
    opened.records.read(np.arange(len(out)), out)
    return out


def encoded(x: np.ndarray, kind: str = "PNG") -> bytes:
    f = io.BytesIO()
    Image.fromarray(x[0] if len(x) == 1 else x.transpose(1, 2, 0)).save(f, kind)
    return f.getvalue()


def same_once_prepared(source: Path, data: Dataset, tmp_path: Path) -> None:
    """`prepare` without rules changes no pixel, label, split or unit of a set that fits."""
    made = confirmed(prepare(source, tmp_path / "made"))
    assert made.info.classes == data.info.classes and made.info.shape == data.info.shape
    for old, new in ((data.train, made.train), (data.test, made.test)):
        assert (old is None) == (new is None)
        if old is not None:
            assert (values(old) == values(new)).all()
            a, b = old._open(), new._open()
            assert a.labels.tolist() == b.labels.tolist()
            assert (a.units is None) == (b.units is None) and (a.units is None or a.units.tolist() == b.units.tolist())


def refused(source: Path, message: str, capfd: pytest.CaptureFixture[str], *options: str) -> None:
    """`init` or `prepare` ends with one line and leaves nothing."""
    out = source.parent / "made"
    assert main(["data", "prepare", str(source), "--out", str(out), *options]) == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and message in told, told
    assert not out.exists() and not list(source.parent.glob(".*made*"))


# ---------------------------------------------------------------------- MedMNIST and CIFAR


def test_medmnist_files(tmp_path: Path) -> None:
    x = pixels(12, (3, 6, 6))
    arrays: dict[str, np.ndarray] = {}
    for split, part in (("train", x[:6]), ("val", x[6:8]), ("test", x[8:])):
        arrays |= {f"{split}_images": part.transpose(0, 2, 3, 1), f"{split}_labels": np.arange(len(part))[:, None] % 2}
    np.savez(tmp_path / "bloodmnist.npz", **arrays)
    init(tmp_path / "bloodmnist.npz")
    data = confirmed(tmp_path / "bloodmnist.npz")
    assert data.info.shape == (3, 6, 6) and (values(data.train) == x[:6]).all() and len(values(data.test)) == 4
    same_once_prepared(tmp_path / "bloodmnist.npz", data, tmp_path)


def test_several_findings_of_medmnist_and_one_is_chosen(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (6, 14)).astype(np.uint8)
    labels[:2, 3] = 0, 1
    np.savez(tmp_path / "chest.npz", train_images=pixels(6)[:, 0], train_labels=labels)
    with pytest.raises(
        DataError, match=r'14 labels an image \(multi-label\); choose one column, label_from = "labels\[0\]'
    ):
        init(tmp_path / "chest.npz")
    assert main(["data", "init", str(tmp_path / "chest.npz"), "--label-from", "labels[3]"]) == 0
    assert confirmed(tmp_path / "chest.npz").train._open().labels.tolist() == labels[:, 3].tolist()


def cifar(root: Path, two: bool) -> np.ndarray:
    root.mkdir()
    x, names = pixels(12, (3, 32, 32)), ["data_batch_1", "data_batch_2", "test_batch"]
    for name, part in zip(["train", "test"] if two else names, np.split(x, 2 if two else 3), strict=True):
        head = [[i % 2, i % 3] if two else [i % 3] for i in range(len(part))]
        data = np.concatenate([np.array(head, np.uint8), part.reshape(len(part), -1)], 1)
        (root / f"{name}.bin").write_bytes(data.tobytes())
    (root / ("fine_label_names.txt" if two else "batches.meta.txt")).write_text("cat\ndog\nemu\n\n")
    if two:
        (root / "coarse_label_names.txt").write_text("fur\nfeather\n")
    return x


@pytest.mark.parametrize("two", [False, True])
def test_cifar_in_its_binary_form(tmp_path: Path, two: bool) -> None:
    x = cifar(tmp_path / "s", two)
    init(tmp_path / "s")
    data = confirmed(tmp_path / "s")
    assert data.info.classes == ("cat", "dog", "emu") and data.info.shape == (3, 32, 32)
    assert (values(data.train) == x[: 6 if two else 8]).all() and (values(data.test) == x[6 if two else 8 :]).all()
    same_once_prepared(tmp_path / "s", data, tmp_path)
    if two:
        declare.path_for(tmp_path / "s").unlink()
        init(tmp_path / "s", Reading(label_from="coarse"))
        assert confirmed(tmp_path / "s").train._open().labels.tolist() == [1, 0] * 3


def test_cifar_that_is_cut(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cifar(tmp_path / "s", False)
    path = tmp_path / "s" / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-1])
    refused(tmp_path / "s", "data_batch_1.bin: cut short", capfd)


# ---------------------------------------------------------------------- zip


def zipped(path: Path, root: Path, inner: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as z:
        for p in sorted(root.rglob("*")):
            if p.is_file():
                z.write(p, f"{inner}{p.relative_to(root).as_posix()}")
    return path


@pytest.mark.parametrize("inner", ["", "pets/"])
def test_a_zip_of_class_folders_is_the_folder(tmp_path: Path, inner: str) -> None:
    for split in ("train", "val", "test"):
        class_folder(tmp_path / "f" / split, pixels(4, seed=len(split)))
    (tmp_path / "f" / "__MACOSX").mkdir()
    (tmp_path / "f" / "__MACOSX" / "x.png").write_bytes(b"litter")
    source = zipped(tmp_path / "pets.zip", tmp_path / "f", inner)
    init(source)
    init(tmp_path / "f")
    data, folder = confirmed(source), confirmed(tmp_path / "f")
    assert data.info.classes == ("cat", "dog") and declare.path_for(source).name == "pets.veilset.toml"
    assert sorted(values(data.train).tolist()) == sorted(values(folder.train).tolist())
    assert any("4 images are in a validation part" in f for f in faults(source, "note"))
    assert any("1 files or folders of the system are skipped: __MACOSX" in f for f in faults(source, "note"))
    same_once_prepared(source, data, tmp_path)


def test_a_zip_of_a_table_has_its_columns(tmp_path: Path) -> None:
    x = pixels(6)
    table_folder(tmp_path / "f", x, unit=["a", "a", "b", "b", "c", "c"], split=["train"] * 4 + ["test"] * 2)
    source = zipped(tmp_path / "s.zip", tmp_path / "f")
    init(source)
    data = confirmed(source)
    assert data.train._open().units.tolist() == [0, 0, 1, 1] and (values(data.train) == x[:4]).all()
    same_once_prepared(source, data, tmp_path)
    table_folder(tmp_path / "g", x, patient_id=["a", "a", "b", "b", "c", "c"])
    other = zipped(tmp_path / "t.zip", tmp_path / "g")
    init(other)
    assert any('column "patient_id" looks like people' in f for f in faults(other))


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items():
            z.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("name", ["../a/0.png", "/a/0.png", "a/../../0.png", "a\\..\\0.png", "C:/a/0.png"])
def test_a_zip_with_a_path_out_of_it(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    source = zip_of(tmp_path / "s.zip", {"a/1.png": encoded(pixels(1)[0]), name: encoded(pixels(1)[0])})
    refused(source, "is not a path inside the archive", capfd)


def test_a_zip_that_would_unpack_beyond_the_bound(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = zip_of(tmp_path / "s.zip", {"a/0.png": encoded(pixels(1)[0]) + bytes(1 << 22)})
    assert source.stat().st_size < 1 << 16
    refused(source, "most_bytes is 1000000; declare more (--most-bytes)", capfd, "--most-bytes", "1000000")


def test_a_zip_that_is_cut_or_damaged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (1, 40, 40), dtype=np.uint8)
    source = zip_of(tmp_path / "s.zip", {"a/0.png": encoded(x)})
    data = source.read_bytes()
    source.write_bytes(data[:500])
    refused(source, "not a zip archive, or cut short", capfd)
    source.write_bytes(data[:200] + bytes(8) + data[208:])
    refused(source, "damaged in the archive", capfd)


# ---------------------------------------------------------------------- tar shards


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(x: np.ndarray, start: int = 0) -> list[tuple[str, bytes]]:
    out = []
    for i, a in enumerate(x, start=start):
        facts = {"label": ("cat", "dog")[i % 2], "patient": f"P{i // 2}", "age": 40}
        out += [(f"{i:04}.png", encoded(a)), (f"{i:04}.json", json.dumps(facts).encode())]
    return out


def test_tar_shards_with_labels_in_json(tmp_path: Path) -> None:
    x, root = pixels(8), tmp_path / "s"
    shard(root / "train-0000.tar", samples(x[:2]))
    shard(root / "train-0001.tar", samples(x[2:4], 2))
    shard(root / "test-0000.tar", samples(x[4:], 4))
    init(root)
    assert any('key "patient" looks like people' in f for f in faults(root))
    path = root / "veilset.toml"
    text = (
        path.read_text().replace('unit_column = ""', 'unit_column = "patient"').replace('"one image"', '"one patient"')
    )
    path.write_text(text.replace("max_images_per_unit = 1", "max_images_per_unit = 2"))
    data = confirmed(root)
    assert (values(data.train) == x[:4]).all() and (values(data.test) == x[4:]).all()
    assert data.train._open().units.tolist() == [0, 0, 1, 1]
    same_once_prepared(root, data, tmp_path)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_one_tar_shard_with_class_numbers(tmp_path: Path, suffix: str) -> None:
    x = pixels(4)
    pairs = [
        m for i, a in enumerate(x) for m in ((f"./{i}.cls", str(10 * (i % 2)).encode()), (f"./{i}.png", encoded(a)))
    ]
    source = shard(tmp_path / f"s.{suffix}", pairs)
    init(source)
    data = confirmed(source)
    assert data.info.classes == ("0", "10") and (values(data.train) == x).all()


@pytest.mark.parametrize("name", ["../0.png", "/etc/0.png"])
def test_a_tar_with_a_path_out_of_it(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    source = shard(tmp_path / "s.tar", [*samples(pixels(2)), (name, b"x")])
    refused(source, "is not a path inside the archive", capfd)


def test_a_tar_with_links_and_one_that_is_cut(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = shard(tmp_path / "s.tar", samples(pixels(2)))
    whole = source.read_bytes()
    with tarfile.open(source, "a") as tar:
        link = tarfile.TarInfo("0009.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    refused(source, "0009.png: is a link or device", capfd)
    source.write_bytes(whole[:700])
    refused(source, "damaged or cut short", capfd)
    source.write_bytes(whole)
    refused(source, "declare more (most_bytes)", capfd, "--most-bytes", "100")
    shard(source, [("0.json", b'{"label": "cat"}')])
    refused(source, "0: has no picture", capfd)


# ---------------------------------------------------------------------- Hugging Face

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def rows_of(x: np.ndarray, labels: list[Any], **columns: list[Any]) -> Any:
    pa = pytest.importorskip("pyarrow")
    names = columns.pop("names", ["cat", "dog"])
    image = pa.array(
        [{"bytes": encoded(a), "path": None} for a in x], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    table = pa.table({"image": image, "label": pa.array(labels, pa.int64()), **columns})
    features = FEATURES | {"label": {"names": names, "_type": "ClassLabel"}}
    features |= {n: {"dtype": "string", "_type": "Value"} for n in columns}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet(path: Path, table: Any) -> Path:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def saved(root: Path, table: Any, split: str = "train") -> Path:
    """As `Dataset.save_to_disk` writes it."""
    import pyarrow as pa

    root.mkdir(parents=True)
    with pa.OSFile(str(root / "data-00000-of-00001.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as out:
        out.write_table(table, max_chunksize=3)
    (root / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split})
    )
    (root / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return root


def test_parquet_shards(tmp_path: Path) -> None:
    x, root = pixels(10), tmp_path / "s"
    labels = [0, 1] * 5
    for name, part in (
        ("train-00000-of-00002", slice(0, 3)),
        ("train-00001-of-00002", slice(3, 6)),
        ("validation-00000-of-00001", slice(6, 7)),
        ("test-00000-of-00001", slice(7, 10)),
    ):
        parquet(root / "data" / f"{name}.parquet", rows_of(x[part], labels[part]))
    init(root)
    data = confirmed(root)
    assert data.info.classes == ("cat", "dog") and (values(data.train) == x[:6]).all()
    assert data.train._open().labels.tolist() == labels[:6] and (values(data.test) == x[7:]).all()
    assert any("1 images are in a validation part" in f for f in faults(root, "note"))
    same_once_prepared(root, data, tmp_path)


def test_columns_of_parquet_that_look_like_people_are_named(tmp_path: Path) -> None:
    x = pixels(4)
    source = parquet(tmp_path / "s.parquet", rows_of(x, [0, 1, 1, 0], patient_id=["a", "a", "b", "b"], site=["x"] * 4))
    init(source)
    assert any('column "patient_id" looks like people' in f for f in faults(source))
    path = declare.path_for(source)
    text = (
        path.read_text()
        .replace('unit_column = ""', 'unit_column = "patient_id"')
        .replace('"one image"', '"one patient"')
    )
    path.write_text(text.replace("max_images_per_unit = 1", "max_images_per_unit = 2"))
    assert confirmed(source).train._open().units.tolist() == [0, 0, 1, 1]
    init(source, Reading(label_from="site"), tmp_path / "by-site.toml")
    assert declare.read(tmp_path / "by-site.toml").info.classes == ("x",)


def test_data_sets_saved_to_disk(tmp_path: Path) -> None:
    x = pixels(8)
    saved(tmp_path / "one", rows_of(x, [0, 1] * 4))
    init(tmp_path / "one")
    assert (values(confirmed(tmp_path / "one").train) == x).all()
    for split, part in (("train", x[:6]), ("test", x[6:])):
        saved(tmp_path / "both" / split, rows_of(part, [0, 1] * (len(part) // 2)), split)
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    init(tmp_path / "both")
    data = confirmed(tmp_path / "both")
    assert (values(data.train) == x[:6]).all() and (values(data.test) == x[6:]).all()
    same_once_prepared(tmp_path / "both", data, tmp_path)


def test_what_the_library_saves(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    x = pixels(6)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Image.fromarray(a[0]) for a in x], "label": [0, 1] * 3}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(tmp_path / "disk")
    made.to_parquet(tmp_path / "s.parquet")
    for source in (tmp_path / "disk", tmp_path / "s.parquet"):
        init(source)
        data = confirmed(source)
        assert (values(data.train) == x).all() and data.info.classes == ("cat", "dog")


def test_shards_that_disagree(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "s"
    parquet(root / "train-00000.parquet", rows_of(pixels(2), [0, 1]))
    parquet(root / "train-00001.parquet", rows_of(pixels(2), [0, 1], names=["dog", "cat"]))
    refused(
        root, "names the classes of \"label\" otherwise than the first shard: ['dog', 'cat'], not ['cat', 'dog']", capfd
    )
    parquet(root / "train-00001.parquet", rows_of(pixels(2), [0, 1], more=["x", "y"]))
    refused(root, "has the columns image, label, more, the first shard has image, label", capfd)


def test_bad_rows_of_parquet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pa = pytest.importorskip("pyarrow")
    source = parquet(tmp_path / "s.parquet", rows_of(pixels(2), [0, None]))
    refused(source, "row 1: label is missing", capfd)
    table = rows_of(pixels(1), [0])
    bare = pa.array([{"bytes": None, "path": "/home/me/x.png"}], table.schema.field("image").type)
    parquet(source, table.set_column(0, table.schema.field("image"), bare))
    refused(source, "holds no bytes, only the path of a picture", capfd)
    source.write_bytes(source.read_bytes()[:-20])
    refused(source, "damaged or cut short", capfd)


def test_a_saved_set_that_names_files_elsewhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = saved(tmp_path / "s", rows_of(pixels(2), [0, 1]))
    (root / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    refused(root, "'../secret.arrow' is not a file in that folder", capfd)


def described(root: Path, x: np.ndarray, kind: str, **columns: list[Any]) -> Path:
    for i, a in enumerate(x):
        png(root / "img" / f"{i}.png", a)
    rows = [{"file_name": f"img/{i}.png", **{k: v[i] for k, v in columns.items()}} for i in range(len(x))]
    if kind == "jsonl":
        (root / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    else:
        lines = [",".join(rows[0]), *(",".join(map(str, r.values())) for r in rows)]
        (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_image_folders_with_metadata(tmp_path: Path, kind: str) -> None:
    x = pixels(6)
    for split, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        described(
            tmp_path / "s" / split, x[part], kind, label=["cat", "dog"] * (2 if split == "train" else 1), age=[3] * 4
        )
    init(tmp_path / "s")
    data = confirmed(tmp_path / "s")
    assert (values(data.train) == x[:4]).all() and (values(data.test) == x[4:]).all()
    assert data.train._open().labels.tolist() == [0, 1, 0, 1]
    same_once_prepared(tmp_path / "s", data, tmp_path)


def test_metadata_that_does_not_fit_its_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = described(tmp_path / "s", pixels(4), "csv", label=["cat", "dog", "cat", "dog"])
    table = root / "metadata.csv"
    text = table.read_text()
    for new, message in (
        (text.replace("img/1.png,dog\n", ""), "img/1.png: label is missing: no row in the table"),
        (text.replace("img/1", "img/9"), "img/9.png: cannot be read (No such file"),
        (text.replace("img/1", "../img/1"), "'../img/1.png' is not a path inside the folder"),
        (text.replace("img/1", "img/0"), "is listed twice"),
        (text.replace("img/1.png,dog", "img/1.png,"), "label is missing; give the class name"),
    ):
        table.write_text(new)
        refused(root, message, capfd)


# ---------------------------------------------------------------------- volumes and stacks


def nifti(path: Path, a: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(a, np.eye(4) if affine is None else affine), path)
    return path


def test_slices_of_volumes_along_the_declared_axis(tmp_path: Path) -> None:
    volumes = np.random.default_rng(0).integers(-100, 900, (4, 6, 5, 3)).astype(np.int16)
    for i, a in enumerate(volumes):
        nifti(tmp_path / "s" / ("ill", "well")[i % 2] / f"{i}.nii.gz", a)
    with pytest.raises(DataError, match=r"holds int16 values and no window is declared") as e:
        prepare(tmp_path / "s", tmp_path / "made")
    assert "\n" not in str(e.value)
    init(tmp_path / "s", Reading(window=(0, 800)))
    assert declare.read(tmp_path / "s").choice.unit_column == "volume"
    data = confirmed(tmp_path / "s")
    assert data.info.shape == (1, 5, 6) and len(values(data.train)) == 12
    assert data.train._open().units.tolist() == [i for i in range(4) for _ in range(3)]
    wanted = np.rint(volumes[2, :, ::-1, 1].T * (255 / 800)).clip(0, 255)  # front above, left to the left
    assert (values(data.train)[4, 0] == wanted).all()
    init(tmp_path / "s", Reading(window=(0, 800), axis=0), tmp_path / "side.toml")
    assert declare.read(tmp_path / "side.toml").info.shape == (1, 3, 5)
    same_once_prepared(tmp_path / "s", data, tmp_path)


def test_volumes_that_are_stored_otherwise_are_turned_to_one_orientation(tmp_path: Path) -> None:
    a = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    nifti(tmp_path / "s" / "x" / "0.nii", a)
    nifti(
        tmp_path / "s" / "x" / "1.nii",
        a[::-1].transpose(2, 0, 1),
        np.array([[0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
    )
    init(tmp_path / "s")
    x = values(confirmed(tmp_path / "s").train)
    assert (x[:3] == x[3:]).all()


def test_volumes_with_values_that_are_no_numbers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a = np.ones((6, 5, 3), np.float32)
    a[2, 2, 1] = np.nan
    source = nifti(tmp_path / "s" / "x" / "0.nii.gz", a).parents[1]
    refused(source, "x/0.nii.gz image 2: holds NaN or infinity", capfd, "--window=0,1")
    nifti(tmp_path / "s" / "x" / "0.nii.gz", np.ones((6, 5, 3, 2), np.uint8))
    refused(source, "has shape [6, 5, 3, 2]: a volume has three axes", capfd)
    (source / "x" / "0.nii.gz").write_bytes(b"\x1f\x8b" + bytes(50))
    refused(source, "cannot be decoded", capfd)


def test_a_table_names_volumes(tmp_path: Path) -> None:
    for i in range(3):
        nifti(tmp_path / "s" / f"sub-{i}" / "t1.nii.gz", np.full((4, 4, 2), i, np.uint8))
    table = tmp_path / "s" / "diagnoses.tsv"
    table.write_text(
        "file\tdiagnosis\tparticipant_id\n" + "".join(f"sub-{i}/t1.nii.gz\t{'xy'[i % 2]}\tP{i}\n" for i in range(3))
    )
    init(tmp_path / "s", Reading(labels="diagnoses.tsv", label_from="diagnosis"))
    assert any('column "participant_id" looks like people' in f for f in faults(tmp_path / "s"))
    path = tmp_path / "s" / "veilset.toml"
    path.write_text(path.read_text().replace("ignored = []", 'ignored = ["participant_id"]'))
    assert confirmed(tmp_path / "s").train._open().labels.tolist() == [0, 0, 1, 1, 0, 0]


def stack(path: Path, a: np.ndarray, **facts: Any) -> None:
    tifffile = pytest.importorskip("tifffile")
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, a, **facts)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_tiff_stacks_and_fractions(tmp_path: Path, kind: str) -> None:
    x = (np.random.default_rng(0).random((3, 2, 6, 5)) * (1 if kind == "float32" else 200)).astype(kind)
    for i, a in enumerate(x):
        stack(tmp_path / "s" / ("ill", "well")[i % 2] / f"{i}.tif", a, photometric="minisblack")
    top = 1 if kind == "float32" else 200
    init(tmp_path / "s", None if kind == "uint8" else Reading(window=(0, top)))
    data = confirmed(tmp_path / "s")
    wanted = x if kind == "uint8" else np.rint(x.astype(float) * (255 / top))
    assert data.train._open().units.tolist() == [0, 0, 1, 1, 2, 2]
    assert (values(data.train)[:4, 0] == wanted[[0, 2]].reshape(4, 6, 5)).all()


def test_tiffs_of_fractions_one_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    for i, a in enumerate(x):
        stack(tmp_path / "s" / ("ill", "well")[i % 2] / f"{i}.tif", a)
    assert main(["data", "init", str(tmp_path / "s")]) == 0
    assert "--window=0,1`" in capfd.readouterr().out
    out = prepare(tmp_path / "s", tmp_path / "made", window=(0, 1))
    assert (values(confirmed(out).train)[1, 0] == np.rint(x[2] * 255)).all()
    a = x[0].copy()
    a[0, 0] = np.inf
    stack(tmp_path / "s" / "ill" / "0.tif", a)
    with pytest.raises(DataError, match="ill/0.tif: holds NaN or infinity"):
        prepare(tmp_path / "s", tmp_path / "again", window=(0, 1))
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("make", "name", "extra"),
    [
        (lambda p: parquet(p / "s.parquet", rows_of(pixels(2), [0, 1])), "pyarrow", "parquet"),
        (lambda p: nifti(p / "s" / "x" / "0.nii", np.ones((4, 4, 2), np.uint8)).parents[1], "nibabel", "nifti"),
    ],
)
def test_a_missing_library_is_one_line_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], name: str, extra: str
) -> None:
    source = make(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(DataError, match=rf"{name} is needed to read this set: pip install 'veilset\[{extra}\]'"):
        init(source)


def test_an_archive_beside_class_folders_is_not_the_set(tmp_path: Path) -> None:
    root = class_folder(tmp_path / "s", pixels(4))
    shard(root / "original.tar.gz", samples(pixels(2)))
    parquet(root / "sizes.parquet", rows_of(pixels(2), [0, 1]))
    init(root)
    assert len(confirmed(root).train._open().labels) == 4


def test_prepare_of_volumes_never_loses_a_table_of_people(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = nifti(tmp_path / "s" / "x" / "0.nii", np.ones((4, 4, 2), np.uint8)).parents[1]
    (source / "participants.tsv").write_text("participant_id\tage\nsub-1\t50\n")
    refused(source, '"participant_id" looks like people, and nothing would say whose images are whose any more', capfd)


def test_a_volume_whose_matrix_names_no_axes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = nifti(tmp_path / "s" / "x" / "0.nii", np.ones((4, 4, 2), np.uint8))
    data, source = bytearray(path.read_bytes()), tmp_path / "s"
    data[254:256], data[280:328] = (2).to_bytes(2, "little"), bytes(48)
    path.write_bytes(bytes(data))
    refused(source, "does not say which axis is which", capfd)


def test_remarks_of_libraries_do_not_stand_between_our_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stack(tmp_path / "s" / "x" / "0.tif", np.ones((3, 6, 5), np.uint8), photometric="minisblack")
    path = tmp_path / "s" / "x" / "0.tif"
    data = bytearray(path.read_bytes())
    data[46:58] = bytes(12)
    path.write_bytes(bytes(data[:300]))
    refused(tmp_path / "s", "x/0.tif", capfd)


def test_two_candidates_for_the_label_are_a_fault_in_every_form(tmp_path: Path) -> None:
    x = pixels(2)
    table = described(tmp_path / "m", x, "csv", label=["a", "b"], **{"class": ["x", "y"]})
    facts = json.dumps({"label": "a", "class": "x"}).encode()
    tar = shard(tmp_path / "s.tar", [("0.png", encoded(x[0])), ("0.json", facts)])
    volumes = nifti(tmp_path / "v" / "0.nii", np.ones((4, 4, 2), np.uint8)).parent
    (volumes / "t.csv").write_text("file,label,class\n0.nii,a,x\n")
    for source, reading in ((table, None), (tar, None), (volumes, Reading(labels="t.csv"))):
        with pytest.raises(DataError, match='"label" and "class" could both be the label; choose by label_from'):
            init(source, reading)
    init(table, Reading(label_from="class"))
    assert declare.read(table).info.classes == ("x", "y")


def test_names_that_are_not_utf8_are_one_line_in_every_form(tmp_path: Path) -> None:
    bad = os.fsdecode(b"caf\xe9")
    table = described(tmp_path / "m", pixels(2), "csv", label=["a", "b"])
    png(table / f"{bad}.png", pixels(1)[0])
    volumes = nifti(tmp_path / "v" / "x" / f"{bad}.nii", np.ones((4, 4, 2), np.uint8)).parents[1]
    tar = shard(tmp_path / "s.tar", [(f"{bad}.png", encoded(pixels(1)[0])), (f"{bad}.cls", b"0")])
    for source in (table, volumes, tar):
        with pytest.raises(DataError, match=r"caf\\xe9.*: its name is not UTF-8; rename it"):
            init(source)


def test_litter_is_counted_in_every_form(tmp_path: Path) -> None:
    source = nifti(tmp_path / "v" / "x" / "0.nii", np.ones((4, 4, 2), np.uint8)).parents[1]
    (source / "x" / "Thumbs.db").write_bytes(b"litter")
    init(source)
    assert any("1 files or folders of the system are skipped: Thumbs.db" in n for n in faults(source, "note"))
