"""CelebA's layout, on generated files: attributes become classes, parts become splits, faults are found."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import pixels

import veilset as vs
from veilset.core.errors import DataError
from veilset.core.types import Images
from veilset.data import check, declare, init, load, prepare

NAMES = ["5_o_Clock_Shadow", "Male", "Smiling", "Young"]
VALUES = [(-1, 1, 1, 1), (1, -1, 1, -1), (-1, 1, -1, 1), (-1, -1, -1, 1), (1, 1, 1, -1), (-1, -1, 1, 1)]
PARTS = [0, 0, 0, 1, 2, 2]


def celeba(
    root: Path,
    shape: tuple[int, int, int] = (3, 8, 6),
    *,
    folder: str = "img_align_celeba",
    kind: str = "txt",
    suffix: str = "jpg",
    repeat: int = 1,
    parts: list[int] | None = None,
    people: list[int] | None = None,
) -> Path:
    """Write 6 * repeat pictures with the label files of CelebA, byte for byte in its form."""
    count = len(VALUES) * repeat
    names = [f"{i + 1:06d}.jpg" for i in range(count)]
    (root / folder).mkdir(parents=True)
    for name, x in zip(names, pixels(count, shape), strict=True):
        Image.fromarray(x.transpose(1, 2, 0)).save(root / folder / Path(name).with_suffix(f".{suffix}"), quality=95)
    rows = [[n, *VALUES[i % 6]] for i, n in enumerate(names)]
    _write(root, "list_attr_celeba", kind, ["image_id", *NAMES], rows, f"{count}\n{' '.join(NAMES)} \n")
    if parts:
        table = [[n, parts[i % 6]] for i, n in enumerate(names)]
        _write(root, "list_eval_partition", kind, ["image_id", "partition"], table)
    if people:
        table = [[n, people[i % 6]] for i, n in enumerate(names)]
        _write(root, "identity_CelebA", "txt", [], table)
    return root


def _write(root: Path, stem: str, kind: str, head: list[str], rows: list[list[object]], top: str = "") -> None:
    if kind == "csv":
        out = io.StringIO()
        csv.writer(out).writerows([head, *rows])
        text = out.getvalue()
    else:
        text = top + "".join("  ".join(map(str, r)) + "\n" for r in rows)
    (root / f"{stem}.{kind}").write_text(text)


def declared(root: Path, **changes: str) -> Path:
    """Draft a declaration, change lines in it, confirm it."""
    path = root / declare.FILE
    if not path.exists():
        init(root)
    lines = path.read_text().replace("confirmed = false", "confirmed = true").splitlines()
    keys = [line.partition(" = ")[0] for line in lines]
    for name, value in changes.items():
        lines[keys.index(name)] = f"{name} = {value}"
    path.write_text("\n".join(lines))
    return root


def faults(root: Path) -> list[str]:
    return [str(f) for f in check(root) if f.severity == "fault"]


def labels(root: Path) -> list[int]:
    return load(root).train._open().labels.tolist()


@pytest.mark.parametrize("kind", ["txt", "csv"])
@pytest.mark.parametrize("folder", ["img_align_celeba", "img_align_celeba/img_align_celeba", "."])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_draft_and_read(tmp_path: Path, kind: str, folder: str, suffix: str) -> None:
    root = celeba(tmp_path / "celeba", folder=folder, kind=kind, suffix=suffix)
    text = init(root).read_text()
    assert 'classes = ["not Male", "Male"]' in text and "joined by" in text and f"list_attr_celeba.{kind}" in text
    read = declare.read(root)
    info, confirmed = read.info, read.confirmed
    assert not confirmed and info.shape == (3, 8, 6) and info.units == 10 and info.unit == "one image"
    declared(root)
    assert faults(root) == []
    assert labels(root) == [1, 0, 1, 0, 1, 0] and load(root).test is None
    if suffix == "png":
        opened = load(root).train._open()
        x = np.empty((6, 3, 8, 6), np.uint8)
        opened.records.read(np.arange(6), x)
        assert (x == pixels(6, (3, 8, 6))).all()


def test_the_partition_is_the_split_and_validation_is_left_out(tmp_path: Path) -> None:
    root = declared(celeba(tmp_path / "celeba", parts=PARTS), access='"public"', units="3")
    assert [str(f) for f in check(root)] == [
        "list_attr_celeba.txt: 1 images are in a validation part, which is neither training nor test: left out; "
        "nothing to do, unless they are meant to be used"
    ]
    test = load(root).test
    assert labels(root) == [1, 0, 1] and isinstance(test, Images) and test.y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "want", "left_out"),
    [
        ('["Smiling", "not Smiling"]', [0, 0, 1, 1, 0, 0], 0),
        ('["Smiling and not Male", "Smiling and Male"]', [1, 0, 1, 0], 2),
        ('["Male", "Smiling"]', [1, 0, 1], 3),  # two smiling men fit both, one image fits neither
        ('["Young"]', [0, 0, 0, 0], 2),
    ],
)
def test_classes_are_attributes(tmp_path: Path, classes: str, want: list[int], left_out: int) -> None:
    root = declared(celeba(tmp_path / "celeba"), classes=classes)
    assert labels(root) == want
    notes = " ".join(str(f) for f in check(root))
    assert faults(root) == [] and (f"{left_out} training images fit none" in notes) == bool(left_out)


def test_identities_are_units(tmp_path: Path) -> None:
    root = celeba(tmp_path / "celeba", people=[7, 8, 7, 9, 9, 9], parts=PARTS)
    init(root)
    assert declare.read(root).info.unit == "one unit id"
    declared(root, unit='"one person"')
    assert load(root).train._open().units.tolist() == [0, 1, 0]
    assert faults(root) == []
    (root / "identity_CelebA.txt").write_text("".join(f"{i + 1:06d}.jpg 7\n" for i in range(6)))
    assert any("its unit is in both splits" in f for f in faults(root))
    (root / "identity_CelebA.txt").write_text("000001.jpg 7\n")
    assert any("000002.jpg is not in identity_CelebA" in f for f in faults(root))


@pytest.mark.parametrize(("side", "suffix"), [(32, "jpg"), (64, "png")])
def test_prepared_small_and_fitted(tmp_path: Path, side: int, suffix: str) -> None:
    root = celeba(tmp_path / "celeba", (3, 109, 89), suffix=suffix, repeat=20, parts=PARTS)
    declared(root, shape=f"[3, {side}, {side}]")
    with pytest.raises(DataError, match=rf"declared are {side}x{side}.*veilset data prepare"):
        load(root).train._open()
    out = declared(prepare(root, tmp_path / "small", size=side), access='"public"', units="60")
    assert sorted(p.name for p in out.iterdir()) == [
        "img_align_celeba",
        "list_attr_celeba.txt",
        "list_eval_partition.txt",
        "veilset.toml",
    ]
    assert faults(out) == []
    data = load(out)
    assert data.info.shape == (3, side, side) and data.info.classes == ("not Male", "Male")
    model = vs.make("dp-moments").fit(data.train, vs.Privacy(1.0, 1e-5), seed=0)
    images = model.sample(4, seed=0)
    assert tuple(images.x.shape) == (4, 3, side, side) and images.classes == data.test.classes  # type: ignore[union-attr]


ATTR = "list_attr_celeba.txt"
FAULTS = [
    (ATTR, "6\n5_o", "5\n5_o", "begins with the count '5' and lists 6 images; restore"),
    (ATTR, "6\n5_o", "5_o", "begins with no row of attribute names"),
    (ATTR, "000003.jpg  -1  1", "000003.jpg  -1", "line 5: has 4 cells for a file and 4 attributes"),
    (ATTR, "000003.jpg  -1", "000003.jpg  yes", "line 5: holds the value 'yes'; every attribute is 1"),
    (ATTR, "000003.jpg", "../000003.jpg", "is not a path inside the folder"),
    (ATTR, "000003.jpg", "000002.jpg", "line 5: 000002.jpg is listed twice"),
    (ATTR, "000003.jpg", "000009.jpg", "000009.jpg: no such file"),
    (ATTR, "000006.jpg  -1  -1  1  1\n", "", "lists 5 images"),
    ("list_eval_partition.txt", "000002.jpg  0", "000002.jpg  3", "line 2: part '3' is unknown; write 0 train"),
    ("list_eval_partition.txt", "000002.jpg  0\n", "", "000002.jpg is not in list_eval_partition"),
    ("list_eval_partition.txt", "000002.jpg  0", "000002.jpg", "line 2: has 1 cells for a file and a value"),
    ("list_eval_partition.txt", "000002.jpg", "000001.jpg", "000001.jpg is listed twice"),
    ("veilset.toml", '"Male"]', '"Mael"]', "class 'Mael' asks for 'Mael', which is no attribute of list_attr_celeba"),
    ("veilset.toml", '"Male"]', '"Male and old"]', "asks for 'old'"),
]


@pytest.mark.parametrize(("file", "old", "new", "words"), FAULTS)
def test_faults_are_found(tmp_path: Path, file: str, old: str, new: str, words: str) -> None:
    root = declared(celeba(tmp_path / "celeba", parts=PARTS))
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    try:
        found = faults(root)
    except DataError as e:  # nothing can be read at all
        found = [str(e)]
    assert any(words in f for f in found) and all("\n" not in f for f in found)
    with pytest.raises(DataError):
        load(root).train._open()


def test_unlisted_and_damaged_pictures(tmp_path: Path) -> None:
    root = declared(celeba(tmp_path / "celeba"))
    one = root / "img_align_celeba" / "000002.jpg"
    (one.parent / "extra.jpg").write_bytes(one.read_bytes())
    one.write_bytes(one.read_bytes()[:200])
    found = " ".join(faults(root))
    assert "extra.jpg: label is missing: no row in list_attr_celeba.txt" in found and "000002.jpg" in found


def test_pictures_that_are_not_there(tmp_path: Path) -> None:
    root = celeba(tmp_path / "celeba")
    (root / "img_align_celeba").rename(tmp_path / "away")
    with pytest.raises(DataError, match="the first of list_attr_celeba.txt, is not there; put the pictures into"):
        init(root)
    (root / "img_align_celeba.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"unpack img_align_celeba\.zip there"):
        init(root)
    celeba(tmp_path / "celeba2")
    (tmp_path / "celeba2" / "img_align_celeba").rename(root / "a")
    (tmp_path / "away").rename(root / "b")
    with pytest.raises(DataError, match="lies in a/ and b/; keep one"):
        init(root)


def test_two_forms_of_one_file_and_an_empty_one(tmp_path: Path) -> None:
    root = celeba(tmp_path / "celeba")
    (root / "list_attr_celeba.csv").write_text("")
    with pytest.raises(DataError, match="holds both list_attr_celeba.txt and list_attr_celeba.csv"):
        init(root)
    (root / "list_attr_celeba.txt").unlink()
    with pytest.raises(DataError, match="begins with no row of attribute names"):
        init(root)
    assert not (root / declare.FILE).exists()
