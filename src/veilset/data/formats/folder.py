"""Image folders with a sub-folder per class, perhaps under train/ and test/."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.columns import Extra, beside
from veilset.data.decode import Unfit, describe, is_picture, open_picture, spool_picture
from veilset.data.faults import Faults, check_empty, check_units
from veilset.data.formats.detect import Glimpse, natural
from veilset.data.records import Spool, small_ints
from veilset.privacy.private import Opened

# What systems and network disks leave behind, in lower case; names with a dot in front are skipped anyway.
LITTER = {"lost+found", "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "recycler"} | {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"
}  # fmt: skip


class FolderSource:
    """One image folder. Names of one class at a time are held in memory, pixels never.

    Args:
        path: holds the class folders, or train/ (and test/) which hold them.
    """

    def __init__(self, path: Path):
        self._path = path
        top = set(folders(path))
        split = "train" in top and top <= {"train", "test"} and bool(folders(path / "train"))
        self._roots = {s: path / s for s in top} if split else {"train": path}

    def has_test(self) -> bool:
        """Whether there is a folder test/ beside train/."""
        return "test" in self._roots

    def extras(self) -> list[Extra]:
        """Tables beside the class folders, and beside train/ and test/."""
        inner = [(r, f"{r.name}/") for r in sorted(self._roots.values()) if r != self._path]
        return [e for root, under in [(self._path, ""), *inner] for e in beside(root, (), under)]

    def scan(
        self, info: PublicInfo, split: str, faults: Faults, keep: bool = True, unit: str | None = None
    ) -> Opened | None:
        """Check one split; return it opened. Records are in class order, then by file name."""
        root = self._roots[split]
        for name in folders(root):
            if name not in info.classes:
                faults.add(
                    f"{self._where(root / name)}/", "class is not declared", "declare it (public) or move it away"
                )
        for name in files(root):
            if is_picture(name):
                faults.add(self._where(root / name), "label is missing: it lies in no class folder", "move it into one")
        note_litter(self._path, faults)
        spool = Spool(info.shape, np.uint8, keep)
        counts = [self._scan_class(root / name, info, faults, spool) for name in info.classes]
        labels = small_ints(np.repeat(np.arange(len(counts)), counts), len(counts))
        if split == "train":
            check_empty(faults, info, labels)
            check_units(faults, info, len(labels), None, self._path.name)
        records = spool.records()
        return Opened(records, labels) if records else None

    def _scan_class(self, folder: Path, info: PublicInfo, faults: Faults, spool: Spool) -> int:
        """Check the pictures of one class and spool them; returns how many were spooled."""
        if not folder.is_dir():
            faults.note(f"{self._where(folder)}/", "the class is declared but has no folder", "check its name")
            return 0
        for name in folders(folder):
            faults.add(
                f"{self._where(folder / name)}/",
                "a folder inside a class folder",
                "move its images up, or list them in labels.csv (with a column for the patients)",
            )
        count = 0
        for name in files(folder):
            where = self._where(folder / name)
            if is_picture(name):
                count += spool_picture(folder / name, where, info, faults, spool)
            else:
                faults.add(where, "not an image file by its name", "move it out of the class folder")
        return count

    def _where(self, path: Path) -> str:
        return path.relative_to(self._path).as_posix()

    def glimpse(self) -> Glimpse:
        """What a draft declaration says: folder names, the first image's shape, the count."""
        root = self._roots["train"]
        pictures = [(root / c, n) for c in folders(root) for n in files(root / c) if is_picture(n)]
        if not pictures:
            raise DataError(f"{self._path}: no image in any class folder; expected CLASS/NAME.png")
        classes = tuple(sorted(folders(root), key=natural))
        return Glimpse(classes, first_shape(pictures[0][0] / pictures[0][1]), (0.0, 255.0), len(pictures))


def folders(path: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted; without litter."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".") and not litter(e.name))


def files(path: Path) -> list[str]:
    """Names of the visible files in a folder, sorted; without litter."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if not e.is_dir() and not e.name.startswith(".") and not litter(e.name))


def litter(name: str) -> bool:
    """Whether a file or folder is one that an operating system or a network disk leaves behind."""
    return name.casefold() in LITTER


def note_litter(path: Path, faults: Faults) -> None:
    """Say how much litter lies in a folder and in its sub-folders."""
    found = []
    for _, inner, names in os.walk(path):
        found += sorted(filter(litter, inner + names))
        inner[:] = [n for n in inner if not litter(n)]
    if found:
        what = f"{len(found)} files or folders of the system are skipped: {', '.join(dict.fromkeys(found))}"
        faults.note(path.name, what, "nothing to do")


def png(name: str) -> str:
    """The name of a picture once it is a PNG."""
    return PurePosixPath(name).with_suffix(".png").as_posix()


def first_shape(path: Path) -> tuple[int, int, int]:
    """(channels, height, width) of one picture, or DataError."""
    try:
        return describe(open_picture(path.read_bytes()))
    except (Unfit, OSError) as e:
        raise DataError(f"{path}: {e}; restore or remove this file") from None
