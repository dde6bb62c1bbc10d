"""An image folder with metadata.csv or metadata.jsonl, as Hugging Face's "imagefolder" has it: a row a file_name."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from veilset.core.errors import DataError
from veilset.data.columns import Extra, beside, extra, fold
from veilset.data.decode import Unfit, is_picture
from veilset.data.faults import Faults
from veilset.data.formats.folder import below, class_of, folders, note_litter, on_disk
from veilset.data.formats.items import Item, ItemSource, inside, only, text
from veilset.data.reading import LEFT_OUT, part_of

TABLES, FILE = ("metadata.csv", "metadata.jsonl"), "file_name"
LABELS = ("label", "labels", "class")


def is_described(path: Path) -> bool:
    """Whether a folder, or each split in it, has such a table."""
    return any(_tables(path))


def _tables(path: Path) -> list[tuple[Path, int]]:
    """(table, part) of a folder: its own, or those of its splits."""
    own = [path / n for n in TABLES if (path / n).is_file()]
    found = [(p, 0) for p in own]
    if not own:
        splits = [(path / f, part) for f in folders(path) if (part := part_of(f)) is not None]
        found = [(d / n, part) for d, part in splits for n in TABLES if (d / n).is_file()]
    return [(p, part) for p, part in found if FILE in next(_rows(p, Faults(p)), (0, {}))[1]]


def _rows(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of a table; a fault if it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            if path.suffix == ".csv":
                yield from enumerate(csv.DictReader(f), start=2)
                return
            for line, words in enumerate(f, start=1):
                if words.strip():
                    row = json.loads(words)
                    if not isinstance(row, dict):
                        raise ValueError(f"line {line} is no object")
                    yield line, row
    except (OSError, ValueError, csv.Error) as e:
        faults.add(path.name, f"cannot be read ({' '.join(str(e).split())[:80]})", "write it again as UTF-8")


class MetadataSource(ItemSource):
    """One such folder. The label is a column of the table, or the folder that a picture lies in."""

    uses: tuple[str, ...] = ("label_from",)

    def has_test(self) -> bool:
        """Whether one of the splits, or a row, is of the test split."""
        return any(item.part == 1 for item in self.items(Faults(self._path), headers=True))

    @cached_property
    def _columns(self) -> list[str]:
        row = next((r for _, r in _rows(_tables(self._path)[0][0], Faults(self._path))), {})
        return [k for k in row if isinstance(k, str)]

    @property
    def _label_column(self) -> str:
        """The column of labels, "" if folders say it."""
        wanted = self._reading.label_from
        found = next((c for c in self._columns if fold(c) == fold(wanted)), "")
        if wanted and not found:
            raise DataError(f"label_from = {wanted!r}: no such column; it has {', '.join(self._columns)}")
        return found or only([c for c in self._columns if fold(c) in LABELS], self._columns, str(self._path))

    def extras(self) -> list[Extra]:
        """The other columns, and tables that are not read."""
        where, used = _tables(self._path)[0][0].name, (FILE, self._label_column, "split")
        return [*(extra(c, "column", where) for c in self._columns if c not in used), *beside(self._path, TABLES)]

    def items(self, faults: Faults, headers: bool = False) -> Iterator[Item]:
        """Every row, and faults for pictures without one."""
        label, listed = self._label_column, set[Path]()
        note_litter(self._path, faults)
        for table, part in _tables(self._path):
            root = table.parent
            for line, row in _rows(table, faults):
                name = text(row.get(FILE))
                place = f"{table.relative_to(self._path).as_posix()} line {line}"
                if not inside(name):
                    faults.add(place, f"{FILE} {name!r} is not a path inside the folder", "correct it")
                    continue
                path = root / on_disk(root, name)
                if path in listed:
                    faults.add(place, f"{name} is listed twice", "keep one row")
                    continue
                listed.add(path)
                word = text(row.get(label)) if label else class_of(name)[0]
                own = part_of(text(row["split"])) if "split" in row else class_of(name)[1] or part
                use = LEFT_OUT if own is None else own
                yield Item(f"{place}: {name}", word, use, partial(_bytes, path), {k: text(v) for k, v in row.items()})
        for path in below(self._path):
            if is_picture(path.name) and path not in listed:
                where = path.relative_to(self._path).as_posix()
                faults.add(where, "label is missing: no row in the table", "add a row or remove the file")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise Unfit(f"cannot be read ({e.strerror})") from None
