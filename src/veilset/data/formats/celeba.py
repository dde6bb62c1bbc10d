"""CelebA's layout: pictures, list_attr_celeba, and perhaps list_eval_partition and identity_CelebA (.txt or .csv).

The declared classes say which attributes are the label: "Male", "not Male", "Smiling and not Male". An image belongs to
a class if all its words hold. An image that fits no class, or several, is left out; so is the validation part.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from veilset.core.errors import DataError, suggest
from veilset.core.types import PublicInfo
from veilset.data.columns import Extra, beside, quoted
from veilset.data.faults import Faults
from veilset.data.formats.detect import Glimpse
from veilset.data.formats.folder import files, first_look, folders, on_disk, png
from veilset.data.formats.table import Table, TableSource
from veilset.data.reading import LEFT_OUT, Reading
from veilset.data.records import key

ATTRIBUTES, PARTITION, IDENTITY = "list_attr_celeba", "list_eval_partition", "identity_CelebA"
PARTS = {"0": 0, "1": LEFT_OUT, "2": 1}  # train, validation, test
INTO_IDENTITY = f"name each image and its person in {IDENTITY}.txt"
VALUES = {"1", "-1", "0"}  # "0" stands for "-1" in some copies
FIRST_CHOICE = "Male"
DEEPEST = 2  # folders between the set and its pictures: img_align_celeba/img_align_celeba/
REMARK = """Each is an attribute of {file}, "not" and an attribute, or several joined by " and ",
for example "Smiling and not Male". An image that fits none of the classes, or several, is left out."""


def listing(path: Path, stem: str) -> Path | None:
    """The label file of this name in a folder, .txt or .csv, or None.

    Raises:
        DataError: both are there.
    """
    found = [p for suffix in (".txt", ".csv") if (p := path / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        raise DataError(f"{path}: holds both {stem}.txt and {stem}.csv; keep one of them")
    return found[0] if found else None


class CelebASource(TableSource):
    """A folder in CelebA's layout.

    Args:
        path: the folder with the label files. The pictures lie in it, or up to two folders below; they may be called
            .png where the label files say .jpg.
    """

    uses: tuple[str, ...] = ("label_from",)

    def __init__(self, path: Path, reading: Reading | None = None):
        super().__init__(path)
        self._choice = (reading or Reading()).label_from
        found = listing(path, ATTRIBUTES)
        assert found is not None, "detect looked for it"
        self._attributes, self._file = found, found.name
        self._partition, self._identity = listing(path, PARTITION), listing(path, IDENTITY)
        self._images = self._find_images()

    @property
    def listings(self) -> list[Path]:
        """The label files that are there."""
        return [p for p in (self._attributes, self._partition, self._identity) if p]

    def pictures(self) -> list[str]:
        """The listed pictures that are there, relative to the folder. Raises DataError for a faulty label file."""
        faults = Faults(self._path)
        place = self._images.relative_to(self._path)
        names = [(place / self._on_disk(cells[0])).as_posix() for _, cells in self._rows(faults)]
        faults.raise_first()
        return list(dict.fromkeys(names))

    def has_test(self) -> bool:
        """Whether there is a partition."""
        return self._partition is not None

    def extras(self) -> list[Extra]:
        """The identities, which are the unit where nothing else is declared, and tables that are not used."""
        named = [Extra(p.name, "file", p.name, p.stem, default=True) for p in (self._identity,) if p]
        return named + beside(self._path, [p.name for p in self.listings], way=INTO_IDENTITY)

    def glimpse(self) -> Glimpse:
        """What a draft declaration says: one attribute (Male, where there is one) as two classes."""
        faults, first, count, people = Faults(self._path), "", 0, set[int]()
        parts, persons = self._second(self._partition, faults), self._second(self._identity, faults)
        for _, cells in self._rows(faults):
            if parts is None or parts.get(cells[0]) == "0":
                first, count = first or cells[0], count + 1
                if persons is not None:
                    people.add(key(persons.get(cells[0], "")))
        faults.raise_first()
        if not count:
            raise DataError(f"{self._attributes}: lists no image of the training split; restore it")
        word = self._choice or (FIRST_CHOICE if FIRST_CHOICE in self._names else self._names[0])
        if word not in self._names:
            what = f"label_from = {word!r}: no attribute of {self._file}.{suggest(word, self._names)}"
            raise DataError(f"{self._path}: {what} Name one that it has")
        return Glimpse(
            (f"not {word}", word),
            first_look(self._images / self._on_disk(first)),
            (0.0, 255.0),
            count,
            {self._identity.name: len(people)} if self._identity else {},
            REMARK.format(file=self._file),
        )

    def _read(self, info: PublicInfo, faults: Faults, unit: str | None) -> Table:
        """All rows, each with its class by the declared attributes, its part and its person."""
        self._validation = 0
        table, odd, wanted = Table(), 0, self._conditions(info, faults)
        parts, persons = self._second(self._partition, faults), self._second(self._identity if unit else None, faults)
        for line, cells in self._rows(faults):
            name, where = cells[0], f"{self._file} line {line}"
            fits = [k for k, words in enumerate(wanted) if all((cells[i] == "1") == yes for i, yes in words)]
            label = fits[0] if len(fits) == 1 else LEFT_OUT
            part, person = "0" if parts is None else parts.get(name), "" if persons is None else persons.get(name)
            if part is None:
                faults.add(where, f"{name} is not in {PARTITION}", "add its row: 0 train, 1 validation, 2 test")
            if person is None:
                faults.add(where, f"{name} is not in {IDENTITY}", "add its row, or move the file away")
            odd += label < 0 and part == "0"
            self._validation += part == "1"
            use = PARTS[part or "0"] if label >= 0 else LEFT_OUT
            table.add(line, self._on_disk(name), label, use, None if persons is None else person or "")
        if odd and wanted:
            what = f"{odd} training images fit none of the declared classes, or several"
            faults.note(self._file, what, "they are left out; declare other classes if that is not meant")
        return table

    def _left_out(self, table: Table) -> int:
        """Those of the validation part; images that fit no class are told apart."""
        return self._validation

    def _conditions(self, info: PublicInfo, faults: Faults) -> list[list[tuple[int, bool]]]:
        """What each class asks for: (cell of the attribute, wanted value) of each of its words."""
        out = []
        for name in info.classes:
            words = [(w.removeprefix("not "), not w.startswith("not ")) for w in name.split(" and ")]
            for word, _ in words:
                if word not in self._names:
                    what = f"class {name!r} asks for {word!r}, which is no attribute of {self._file}"
                    faults.add("classes", what, f"declare classes by its attributes.{suggest(word, self._names)}")
            out.append([(self._names.index(w) + 1, yes) for w, yes in words if w in self._names])
        return out if all(out) else []

    # ------------------------------------------------------------------ the files

    @cached_property
    def _names(self) -> list[str]:
        """The attributes, in the order of their columns."""
        txt, rows = self._attributes.suffix == ".txt", _lines(self._attributes, Faults(self._path))
        if txt:
            next(rows, None)
        head = next(rows, (0, []))[1]
        return head if txt else head[1:]

    def _rows(self, faults: Faults) -> Iterator[tuple[int, list[str]]]:
        """(line, [file, value, ...]) of every row that is whole; faults for the others."""
        head, names, listed = (2 if self._attributes.suffix == ".txt" else 1), self._names, 0
        rows = _lines(self._attributes, faults)
        heads = [cells for _, cells in (next(rows, (0, [""])) for _ in range(head))]
        if not names or VALUES & set(names):
            what = "begins with no row of attribute names"
            faults.add(self._file, what, "it must begin like CelebA's: the count (.txt), then the names")
            return
        for line, cells in rows:
            listed += 1
            where, file = f"{self._file} line {line}", PurePosixPath(cells[0])
            if len(cells) != len(names) + 1:
                faults.add(where, f"has {len(cells)} cells for a file and {len(names)} attributes", "correct the row")
            elif file.is_absolute() or ".." in file.parts:
                faults.add(where, f"file {cells[0]!r} is not a path inside the folder", "name it by its file name")
            elif not VALUES.issuperset(cells[1:]):
                name, bad = next((n, c) for n, c in zip(names, cells[1:], strict=True) if c not in VALUES)
                todo = (
                    f"every attribute is 1 (yes) or -1 (no), also {quoted(name)}; a person belongs into {IDENTITY}.txt"
                )
                faults.add(where, f"holds the value {bad!r}", todo)
            else:
                yield line, cells
        if head == 2 and heads[0] != [str(listed)]:
            what = f"begins with the count {' '.join(heads[0])[:40]!r} and lists {listed} images"
            faults.add(self._file, what, "restore the file, or correct its first line")

    def _second(self, path: Path | None, faults: Faults) -> dict[str, str] | None:
        """File -> second column of the partition or the identities; None without such a file."""
        if path is None:
            return None
        out: dict[str, str] = {}
        for n, (line, cells) in enumerate(_lines(path, faults)):
            where, known = f"{path.name} line {line}", PARTS if path == self._partition else None
            if n == 0 and path.suffix == ".csv":
                continue
            if len(cells) != 2 or not cells[1]:
                faults.add(where, f"has {len(cells)} cells for a file and a value", "correct the row")
            elif cells[0] in out:
                faults.add(where, f"{cells[0]} is listed twice", "keep one row")
            elif known and cells[1] not in known:
                faults.add(where, f"part {cells[1]!r} is unknown", "write 0 train, 1 validation, 2 test")
            else:
                out[cells[0]] = cells[1]
        return out

    def _on_disk(self, name: str) -> str:
        """The name of a listed picture on disk: as it is written, or with the suffix .png."""
        other = png(name)
        use = other if not (self._images / name).is_file() and (self._images / other).is_file() else name
        return on_disk(self._images, use)

    def _find_images(self) -> Path:
        """The folder of the first listed picture.

        Raises:
            DataError: it is nowhere, or in several folders.
        """
        name = next((cells[0] for _, cells in self._rows(Faults(self._path))), "")
        level, found = [self._path], list[Path]()
        for _ in range(DEEPEST + 1):
            found += [p for p in level if name and ((p / name).is_file() or (p / png(name)).is_file())]
            level = [p / f for p in level for f in folders(p)]
        if len(found) > 1:
            places = " and ".join(f"{p.relative_to(self._path).as_posix()}/" for p in found)
            raise DataError(f"{self._path}: {name} lies in {places}; keep one copy of the pictures")
        if not found:
            self._explain(name)
        return found[0]

    def _explain(self, name: str) -> None:
        """Raise DataError: the pictures are not there."""
        faults = Faults(self._path)
        next(self._rows(faults), None)
        faults.raise_first()
        zips = [n for n in files(self._path) if n.endswith(".zip")]
        todo = f"unpack {zips[0]} there" if zips else "put the pictures into img_align_celeba/"
        raise DataError(f"{self._path}: {name or 'a listed picture'}, the first of {self._file}, is not there; {todo}")


def _lines(path: Path, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every line that is not blank; a fault if the file cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            rows: Iterator[list[str]] = csv.reader(f) if path.suffix == ".csv" else map(str.split, f)
            for line, cells in enumerate(rows, start=1):
                if cells:
                    yield line, [c.strip() for c in cells]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        faults.add(path.name, f"cannot be read ({e})", "write it as UTF-8, columns by spaces (.txt) or commas (.csv)")
