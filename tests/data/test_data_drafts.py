"""What a draft and a check say about labels that are missing, doubled, unused or numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_sets import class_folder, confirm, idx_pair, pixels, table_folder

from veilset.core.errors import DataError
from veilset.data import check, declare, init, load, prepare

NUMBERS = [str(k) for k in range(12)]


def found(source: Path, severity: str = "fault") -> list[str]:
    return [str(f) for f in check(source) if f.severity == severity]


@pytest.mark.parametrize("names", [["x", "y"] * 3, ["x", "x", "y"] * 2])
def test_two_candidates_for_the_label_are_a_fault(tmp_path: Path, names: list[str]) -> None:
    root = table_folder(tmp_path / "s", pixels(6), **{"class": names})
    with pytest.raises(DataError, match=r'line 2: columns label \("cat"\) and class \("x"\) could both be the label'):
        init(root)
    confirm(root, classes=("x", "y"))
    assert len(found(root)) == 1 and "could both be the label" in found(root)[0]


def test_numbers_that_are_not_those_of_the_class_are_no_release(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(6), **{"class": ["x", "x", "y", "y", "x", "y"]})
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("cat", "0").replace("dog", "1"))
    confirm(root, classes=("x", "y"))
    assert len(found(root)) == 1 and "could both be the label" in found(root)[0]
    (root / "labels.csv").write_text(
        text.replace("cat,x", "0,x").replace("dog,x", "0,x").replace("cat,y", "1,y").replace("dog,y", "1,y")
    )
    assert found(root) == [] and load(root).train._open().labels.tolist() == [0, 0, 1, 1, 0, 1]


def test_a_missing_label_is_named_before_it_becomes_a_class(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "s", pixels(6))
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("005.png,dog", "005.png, "))
    with pytest.raises(DataError, match=r"labels\.csv line 7: label is missing"):
        init(root)
    np.savez(tmp_path / "s.npz", x=pixels(6), y=np.array(["a", "b", "", "a", "b", "a"]))
    with pytest.raises(DataError, match="array y: holds an empty text: a label is missing"):
        init(tmp_path / "s.npz")
    assert not list(tmp_path.rglob("*veilset.toml"))


def test_numbers_are_drafted_in_their_order_in_every_layout(tmp_path: Path) -> None:
    x = pixels(12)
    class_folder(tmp_path / "f", x, NUMBERS)
    root = table_folder(tmp_path / "t", x)
    for i in NUMBERS:
        path = root / "labels.csv"
        path.write_text(
            path.read_text().replace(f"{int(i):03d}.png,{('cat', 'dog')[int(i) % 2]}", f"{int(i):03d}.png,{i}")
        )
    np.savez(tmp_path / "n.npz", x=x, y=np.arange(12))
    np.savez(tmp_path / "s.npz", x=x, y=np.array(NUMBERS))
    for name in ("f", "t", "n.npz", "s.npz"):
        init(tmp_path / name)
        assert declare.read(tmp_path / name).info.classes == tuple(NUMBERS), name
    class_folder(tmp_path / "w", pixels(4), ["b10", "b9", "a", "007x"])
    init(tmp_path / "w")
    assert declare.read(tmp_path / "w").info.classes == ("007x", "a", "b9", "b10")


def test_a_declared_class_without_an_image_is_a_remark_in_every_layout(tmp_path: Path) -> None:
    x, y = pixels(6), np.array([0, 1] * 3, np.uint8)
    class_folder(tmp_path / "f", x)
    (tmp_path / "f" / "bird").mkdir()
    table_folder(tmp_path / "t", x)
    np.savez(tmp_path / "n.npz", x=x, y=y)
    idx_pair(tmp_path / "i", "train", x[:, 0], y)
    for name in ("f", "t", "n.npz", "i"):
        confirm(tmp_path / name, classes=("cat", "dog", "bird"))
        notes = found(tmp_path / name, "note")
        assert notes == [
            "classes: no training image has the label 'bird'; a release holds noise under it; "
            "declare other classes if that is not meant"
        ], name


def test_many_classes_without_an_image_are_counted(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=pixels(6), y=np.array([0, 99] * 3))
    confirm(tmp_path / "s.npz", classes=tuple(map(str, range(100))))
    assert "'10' and 88 more; " in found(tmp_path / "s.npz", "note")[0]


@pytest.mark.parametrize("make", [class_folder, table_folder])
def test_litter_of_systems_is_skipped_and_counted(tmp_path: Path, make: Callable[..., Path]) -> None:
    root = make(tmp_path / "s", pixels(6))
    for name in ("lost+found", "__MACOSX", "@eaDir"):
        (root / name).mkdir()
    inner = root / ("cat" if make is class_folder else "img")
    for name in ("Thumbs.db", "desktop.ini"):
        (inner / name).write_bytes(b"litter")
    shutil.copy(next(inner.glob("*.png")), root / "__MACOSX" / "000.png")
    init(root)
    declared = declare.read(root).info
    assert declared.classes == ("cat", "dog")
    confirm(root)
    assert found(root) == [] and "5 files or folders of the system are skipped: " in found(root, "note")[0]
    assert len(load(root).train._open().labels) == 6
    assert sorted(p.name for p in prepare(root, tmp_path / "out").rglob("*") if p.suffix not in (".png", ".toml")) == (
        ["cat", "dog"] if make is class_folder else ["img", "labels.csv"]
    )


def test_a_folder_of_litter_alone_is_no_set(tmp_path: Path) -> None:
    (tmp_path / "s" / "lost+found").mkdir(parents=True)
    with pytest.raises(DataError, match="no sub-folder per class"):
        init(tmp_path / "s")
