"""Image folders with a sub-folder per class, perhaps under train/ and test/."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.columns import Extra, beside
from veilset.data.decode import Look, Unfit, is_picture, look, spool_pictures
from veilset.data.faults import Faults, check_empty, check_units
from veilset.data.formats.detect import Glimpse, natural
from veilset.data.reading import LEFT_OUT, SPLITS, part_of, same
from veilset.data.records import Spool, small_ints
from veilset.privacy.private import Opened

# What systems and network disks leave behind, in lower case; names with a dot in front are skipped anyway.
LITTER = {"lost+found", "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "recycler"} | {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"
}  # fmt: skip

NO_RECORDS = (".csv", ".tsv", ".txt", ".toml", ".json", ".jsonl", ".md")


class FolderSource:
    """One image folder. Names of one class at a time are held in memory, pixels never.

    Args:
        path: holds the class folders, or train/ (and val/ and test/, in any case) which hold them.
    """

    uses: tuple[str, ...] = ()

    def __init__(self, path: Path):
        self._path = path
        self._roots, self._left = split_folders(path)

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
        there = {same(name): name for name in folders(root)}
        declared = set(map(same, info.classes))
        for plain, name in there.items():
            if plain not in declared:
                faults.add(
                    f"{self._where(root / name)}/", "class is not declared", "declare it (public) or move it away"
                )
        for name in files(root):
            if is_picture(name):
                faults.add(self._where(root / name), "label is missing: it lies in no class folder", "move it into one")
        note_litter(self._path, faults)
        note_left(sum(1 for p in self._left for _ in _below(p)), faults, self._path.name)
        spool = Spool(info.shape, np.uint8, keep)
        counts = [self._scan_class(root / there.get(same(c), c), info, faults, spool) for c in info.classes]
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
        names, place = files(folder), self._where(folder)
        for name in names:
            if not is_picture(name):
                faults.add(f"{place}/{name}", "not an image file by its name", "move it out of the class folder")
        pictures = [(name, f"{place}/{name}") for name in names if is_picture(name)]
        return sum(spool_pictures(folder, pictures, info, faults, spool))

    def _where(self, path: Path) -> str:
        return path.relative_to(self._path).as_posix()

    def glimpse(self) -> Glimpse:
        """What a draft declaration says: folder names, the first image's shape, the count."""
        root = self._roots["train"]
        pictures = [(root / c, n) for c in folders(root) for n in files(root / c) if is_picture(n)]
        if not pictures:
            raise DataError(f"{self._path}: no image in any class folder; expected CLASS/NAME.png")
        classes = tuple(sorted(folders(root), key=natural))
        return Glimpse(classes, first_look(pictures[0][0] / pictures[0][1]), (0.0, 255.0), len(pictures))


def split_folders(path: Path) -> tuple[dict[str, Path], list[Path]]:
    """({split: its folder}, the validation folders, which are left out) of a set; all is training without train/.

    Raises:
        DataError: two folders are one split, as Train/ and training/.
    """
    top = folders(path)
    parts = {name: part_of(name) for name in top}
    if 0 not in parts.values() or None in parts.values():
        return {"train": path}, []
    roots: dict[str, Path] = {}
    for name, part in parts.items():
        if part != LEFT_OUT and (split := SPLITS[part or 0]) in roots:
            raise DataError(f"{path}: {roots[split].name}/ and {name}/ are both the {split} split; join or rename one")
        if part != LEFT_OUT:
            roots[SPLITS[part or 0]] = path / name
    if not folders(roots["train"]):
        return {"train": path}, []  # a class that is called train
    return roots, [path / name for name, part in parts.items() if part == LEFT_OUT]


def below(path: Path) -> Iterator[Path]:
    """All visible files below a folder, in order; without litter. Raises DataError for a name that is not UTF-8."""
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(n for n in inner if not litter(n) and n[0] != ".")
        for name in sorted(names):
            if not litter(name) and name[0] != ".":
                utf8(Path(folder, name))
                yield Path(folder, name)


def has_pictures(path: Path) -> bool:
    """Whether a picture lies somewhere below a folder: then a table or an archive beside it is not the set."""
    return any(is_picture(p.name) for p in below(path))


def first_file(path: Path) -> Path | None:
    """The first file below a folder that is no table or text, or the file itself."""
    if path.is_file():
        return path
    return next((p for p in below(path) if p.suffix.lower() not in NO_RECORDS), None)


def class_of(name: str) -> tuple[str, int]:
    """(class, part) of a file by its path: the first folder that is no split is the class; "" if there is none."""
    inner = name.split("/")[:-1]
    part = part_of(inner[0]) if len(inner) > 1 else None
    if part is not None:
        return inner[1], part
    return (inner[0] if inner else ""), 0


def _below(path: Path) -> list[Path]:
    """The pictures in the class folders of a folder."""
    return [path / c / n for c in folders(path) for n in files(path / c) if is_picture(n)]


def note_left(count: int, faults: Faults, where: str) -> None:
    """Say how many images are in a validation part, which nothing reads."""
    if count:
        what = f"{count} images are in a validation part, which is neither training nor test: left out"
        faults.note(where, what, "nothing to do, unless they are meant to be used")


def folders(path: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted; without litter. Raises DataError for one that is not UTF-8."""
    return _names(path, folder=True)


def files(path: Path) -> list[str]:
    """Names of the visible files in a folder, sorted; without litter. Raises DataError for one that is not UTF-8."""
    return _names(path, folder=False)


def _names(path: Path, folder: bool) -> list[str]:
    with os.scandir(path) as entries:
        names = sorted(e.name for e in entries if e.is_dir() == folder and e.name[0] != "." and not litter(e.name))
    for name in names:
        if not name.isascii():
            utf8(path / name)
    return names


def utf8(path: Path) -> None:
    """Refuse a path whose name is not UTF-8: it cannot be written into a declaration, a table or a receipt.

    Raises:
        DataError: names it, with the odd bytes spelt out.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise DataError(f"{shown}: its name is not UTF-8; rename it") from None


def on_disk(root: Path, name: str) -> str:
    """How a listed file is called on disk: as it is listed, or with accents composed otherwise."""
    if name.isascii() or (root / name).exists():
        return name
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return next((form for form in forms if (root / form).exists()), name)


def litter(name: str) -> bool:
    """Whether a file or folder is one that an operating system or a network disk leaves behind."""
    return name.casefold() in LITTER


def note_litter(path: Path, faults: Faults) -> None:
    """Say how much litter lies in a folder and in its sub-folders."""
    found = []
    for _, inner, names in os.walk(path):
        found += sorted(filter(litter, inner + names))
        inner[:] = [n for n in inner if not litter(n)]
    note_skipped(found, faults, path.name)


def note_skipped(found: list[str], faults: Faults, where: str) -> None:
    """Say how much litter was skipped, by name."""
    if found:
        what = f"{len(found)} files or folders of the system are skipped: {', '.join(dict.fromkeys(found))}"
        faults.note(where, what, "nothing to do")


def png(name: str) -> str:
    """The name of a picture once it is a PNG."""
    return PurePosixPath(name).with_suffix(".png").as_posix()


def first_look(path: Path) -> Look:
    """What a draft says of one picture, or DataError."""
    try:
        return look(path.read_bytes())
    except (Unfit, OSError) as e:
        raise DataError(f"{path}: {e}; restore or remove this file") from None
