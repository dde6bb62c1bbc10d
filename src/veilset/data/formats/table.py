"""Image folders with labels.csv: columns file, label (a class name), perhaps split (train or test), and others."""

from __future__ import annotations

import contextlib
import csv
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.columns import Extra, beside, extra, fold, quoted
from veilset.data.decode import is_picture, spool_pictures
from veilset.data.faults import Faults, check_empty, check_units
from veilset.data.formats.detect import Glimpse, natural
from veilset.data.formats.folder import first_look, litter, note_left, note_litter, on_disk, utf8
from veilset.data.reading import LEFT_OUT, SPLITS, Reading, check_count, part_of, same
from veilset.data.records import Array, Spool, dense, key, small_ints
from veilset.privacy.private import Opened

FILE = "labels.csv"
CHOSEN = "\0label"  # where a row keeps the label that was chosen by `label_from`
COLUMNS = ("file", "label", "class", "split")
ENCODING = "utf-8-sig"  # with or without the mark that some programs put in front


class Table:
    """The rows of a label file, compactly: a million of them cost tens of megabytes, not hundreds.

    Attributes:
        labels: index into the declared classes, -1 where there is none.
        parts: index into SPLITS, or LEFT_OUT.
        units: digest of the unit id, or an empty array if there is no such column.
    """

    def __init__(self) -> None:
        self._names, self._ends = bytearray(), array("q")
        self._lines, self._labels, self._parts, self._units = array("q"), array("i"), array("b"), array("Q")

    def add(self, line: int, name: str, label: int, part: int, unit: str | None) -> None:
        """Append one row."""
        self._names += name.encode()
        self._ends.append(len(self._names))
        self._lines.append(line)
        self._labels.append(label)
        self._parts.append(part)
        if unit is not None:
            self._units.append(key(unit))

    def name(self, i: int) -> str:
        """The file of row i."""
        return self._names[self._ends[i - 1] if i else 0 : self._ends[i]].decode()

    def line(self, i: int) -> int:
        """The line of row i in the file."""
        return self._lines[i]

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def labels(self) -> Array:
        """[n] class numbers."""
        return np.array(self._labels, np.int32)

    @property
    def parts(self) -> Array:
        """[n] index into SPLITS, or LEFT_OUT."""
        return np.array(self._parts, np.int8)

    @property
    def units(self) -> Array:
        """[n] 64-bit digests of the unit ids."""
        return np.array(self._units, np.uint64)


class TableSource:
    """One image folder with labels.csv.

    Args:
        path: the folder. Files are named relative to it.
        reading: which column is the label, where it is not `label`.
    """

    uses: tuple[str, ...] = ("label_from",)

    def __init__(self, path: Path, reading: Reading | None = None):
        self._path, self._column = path, fold((reading or Reading()).label_from)
        self._file = FILE  # as messages call the label file
        self._images = path  # what file names are relative to

    def has_test(self) -> bool:
        """Whether labels.csv has a column `split`."""
        return "split" in map(fold, self._head())

    def extras(self) -> list[Extra]:
        """The other columns of labels.csv, and other tables beside it."""
        used = ("file", "split", self._column) if self._column else COLUMNS
        columns = [extra(name, "column", FILE) for name in self._head() if fold(name) not in used]
        return columns + beside(self._path, (FILE,))

    def _head(self) -> list[str]:
        """The columns of labels.csv as they are written; none if it cannot be read."""
        with (
            contextlib.suppress(csv.Error),
            open(self._path / FILE, newline="", encoding=ENCODING, errors="replace") as f,
        ):
            return _columns(csv.reader(f), Faults(self._path), self._column) or []
        return []

    def scan(
        self, info: PublicInfo, split: str, faults: Faults, keep: bool = True, unit: str | None = None
    ) -> Opened | None:
        """Check one split; return it opened. Records are in the order of the rows."""
        table = self._read(info, faults, unit)
        self._check_files(table, faults)
        units = table.units
        if len(units):
            self._check_split(table, faults)
        spool, asked = Spool(info.shape, np.uint8, keep), np.flatnonzero(table.parts == SPLITS.index(split))
        names = [(n, f"{self._file} line {table.line(i)}: {n}") for i in asked.tolist() if (n := table.name(i))]
        rows = asked[np.array(spool_pictures(self._images, names, info, faults, spool), bool)]
        ids = dense(units[rows]) if len(units) else None
        note_left(self._left_out(table), faults, self._file)
        if split == "train":
            check_empty(faults, info, table.labels[rows])
            check_units(faults, info, len(rows), ids, self._file)
        records = spool.records()
        return Opened(records, small_ints(table.labels[rows], len(info.classes)), ids) if records else None

    def _left_out(self, table: Table) -> int:
        """How many rows are of a validation part."""
        return int((table.parts == LEFT_OUT).sum())

    def glimpse(self) -> Glimpse:
        """What a draft declaration says: label names, the first image's shape, the count, and who may be the units."""
        faults, names, count, first = Faults(self._path), set[str](), 0, ""
        who = {fold(e.name): (e.name, set[int]()) for e in self.extras() if e.people and not e.way}
        for line, row in rows_of(self._path, faults, self._column):
            _check_label(row, f"{FILE} line {line}", faults)
            if part_of(row.get("split", "train")) == 0:
                names.add(label_of(row))
                first = first or row["file"]
                count += 1
                for column, (_, keys) in who.items():
                    keys.add(key(row[column]))
        faults.raise_first()
        check_count(len(names), f"{self._path / FILE}")
        if not count:
            raise DataError(f"{self._path / FILE}: no row of the training split")
        people = {name: len(keys) for name, keys in who.values()}
        return Glimpse(
            tuple(sorted(names, key=natural)),
            first_look(self._path / on_disk(self._path, first)),
            (0.0, 255.0),
            count,
            people,
        )

    def _read(self, info: PublicInfo, faults: Faults, unit: str | None) -> Table:
        """All rows that can be used; faults for the others."""
        number, table = {same(c): i for i, c in enumerate(info.classes)}, Table()
        for line, row in rows_of(self._path, faults, self._column):
            where = f"{FILE} line {line}"
            label = number.get(same(label_of(row)), -1)
            if _check_label(row, where, faults) and label < 0:
                faults.add(where, f"class {label_of(row)!r} is not declared", "correct it, or declare it (public)")
            person = row[fold(unit)] if unit else None
            if person == "":
                faults.add(where, f"{fold(unit or '')} is missing", "give the unit id (for example of the patient)")
            part = part_of(row.get("split", "train"))
            table.add(line, on_disk(self._images, row["file"]), label, LEFT_OUT if part is None else part, person)
        return table

    def _check_files(self, table: Table, faults: Faults) -> None:
        """Report files that are listed twice, and pictures in the folder that no row lists."""
        keys = np.fromiter((key(table.name(i)) for i in range(len(table))), np.uint64, len(table))
        _, first = np.unique(keys, return_index=True)
        for i in np.setdiff1d(np.arange(len(keys)), first).tolist():
            faults.add(f"{self._file} line {table.line(i)}", f"{table.name(i)} is listed twice", "keep one row")
        listed = set(keys.tolist())
        note_litter(self._path, faults)
        for folder, inner, names in os.walk(self._images):
            inner[:] = [n for n in inner if not litter(n)]
            for name in sorted(filter(is_picture, names)):
                utf8(Path(folder, name))
                path = (Path(folder) / name).relative_to(self._images).as_posix()
                if key(path) not in listed:
                    faults.add(path, f"label is missing: no row in {self._file}", "add a row or remove the file")

    def _check_split(self, table: Table, faults: Faults) -> None:
        """Report units that are in both splits, once each."""
        units, parts = table.units, table.parts
        rows = np.flatnonzero((parts == 1) & np.isin(units, units[parts == 0]))
        for i in rows[np.unique(units[rows], return_index=True)[1]].tolist():
            faults.add(
                f"{self._file} line {table.line(i)}",
                "its unit is in both splits",
                "give all images of a unit to one split",
            )


def label_of(row: dict[str, str]) -> str:
    """The class name: the declared column (see `rows_of`), `class` (our releases, see `_Pairs`), or `label`."""
    return row.get(CHOSEN, row.get("class", row.get("label", "")))


def _check_label(row: dict[str, str], where: str, faults: Faults) -> bool:
    """Whether a row has a label; reports if not."""
    if not label_of(row):
        faults.add(where, "label is missing", "give the class name")
    return bool(label_of(row))


class _Pairs:
    """Tells a release (`label` is a number, `class` its name) from a table with two candidates for the label."""

    def __init__(self) -> None:
        self._names, self._numbers = dict[str, str](), dict[str, str]()
        self._told = False

    def check(self, row: dict[str, str], where: str, faults: Faults) -> None:
        """Report, once, a row whose label is no number, or not always that of its class."""
        if "label" not in row or "class" not in row or CHOSEN in row or self._told:
            return
        label, name = row["label"], row["class"]
        one = self._names.setdefault(label, name) == name and self._numbers.setdefault(name, label) == label
        if not label.isdecimal() or not one:
            self._told = True
            what = f"columns label ({quoted(label)}) and class ({quoted(name)}) could both be the label"
            faults.add(where, what, "rename one of them in the header, for example to class_2")


def _columns(reader: Iterator[list[str]], faults: Faults, column: str = "") -> list[str] | None:
    """The header as it is written, or None after reporting what is wrong with it."""
    head = [c.strip() for c in next(reader, [])]
    names = list(map(fold, head))
    whole = "file" in names and len(set(names)) == len(names)
    if whole and column and column not in names:
        what = f"there is no column {quoted(column)}, which label_from names; it has {', '.join(map(quoted, head))}"
        faults.add(FILE, what, "name one that it has")
        return None
    if not whole or not (column or {"label", "class"} & set(names)):
        what, rest = f"its header is {','.join(head)[:80]!r}", ", ".join(quoted(c) for c in head if fold(c) != "file")
        choose = f"; or choose the label by label_from (--label-from): one of {rest}" if whole else ""
        faults.add(FILE, what, f"it must name the columns file,label[,split][,unit], each once, with commas{choose}")
        return None
    return head


def rows_of(path: Path, faults: Faults, column: str = "") -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row by folded column name) for every row that has all its columns; faults for the others.

    With `column`, folded, that one is the label (see `label_of`), whatever others are called.
    """
    try:
        with open(path / FILE, newline="", encoding=ENCODING) as f:
            yield from parse_rows(f, faults, column)
    except (OSError, UnicodeDecodeError) as e:
        faults.add(FILE, f"cannot be read ({e})", "write it as UTF-8 with commas")


def parse_rows(f: Iterable[str], faults: Faults, column: str = "") -> Iterator[tuple[int, dict[str, str]]]:
    """As `rows_of`, of the lines of a table."""
    try:
        reader = csv.reader(f)
        head, pairs = [fold(c) for c in _columns(reader, faults, column) or ()], _Pairs()
        for cells in reader if head else ():
            if cells and (row := _row(reader.line_num, head, cells, faults)):
                row |= {CHOSEN: row[column]} if column else {}
                pairs.check(row, f"{FILE} line {reader.line_num}", faults)
                yield reader.line_num, row
    except csv.Error as e:
        faults.add(FILE, f"cannot be read ({e})", "write it as UTF-8 with commas")


def _row(line: int, head: list[str], cells: list[str], faults: Faults) -> dict[str, str] | None:
    """One row by column name, or None after reporting it."""
    where = f"{FILE} line {line}"
    if len(cells) != len(head):
        faults.add(where, f"has {len(cells)} cells for {len(head)} columns", "correct the row")
        return None
    row = {c: v.strip() for c, v in zip(head, cells, strict=True)}
    file = PurePosixPath(row["file"])
    if not row["file"] or file.is_absolute() or ".." in file.parts:
        faults.add(where, f"file {row['file']!r} is not a path inside the folder", "name it relative to the folder")
        return None
    if part_of(row.get("split", "train")) is None:
        faults.add(where, f"split {row['split']!r} is none of train, val and test", "write train, val or test")
        return None
    row["file"] = file.as_posix()
    return row
