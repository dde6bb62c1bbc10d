"""A table of labels for sets whose files hold none: one row per file, study or patient."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from veilset.core.errors import DataError
from veilset.data.columns import Extra, extra, fold, quoted
from veilset.data.faults import Faults
from veilset.data.formats.items import only
from veilset.data.reading import LEFT_OUT, Reading, part_of, same

MARKS = {".tsv": "\t", ".tab": "\t"}


class Lookup:
    """Rows of a table of labels by the key that its first known column holds.

    Args:
        root: the set's folder.
        reading: names the table, and which column is the label.
        keys: name of a key without its case and signs -> what it stands for; the most specific first.

    Raises:
        DataError: no such table, no column that is a key, none that is the label, or two rows of one key.
    """

    def __init__(self, root: Path, reading: Reading, keys: Mapping[str, str]):
        self.file = reading.labels
        path = root / reading.labels
        try:
            with open(path, newline="", encoding="utf-8-sig") as f:
                rows = [r for r in csv.reader(f, delimiter=MARKS.get(path.suffix.lower(), ",")) if r]
        except (OSError, UnicodeDecodeError, csv.Error) as e:
            raise DataError(
                f"labels = {reading.labels!r}: {path} cannot be read ({e}); write UTF-8 with commas"
            ) from None
        self._head = [c.strip() for c in rows[0]] if rows else []
        plain = [re.sub("[^a-z]", "", fold(c)) for c in self._head]
        self.key = next((keys[k] for k in keys if k in plain), "")
        if not self.key:
            raise DataError(f"{path}: no column says which file a row is about; name one {', '.join(keys)}")
        self._at = plain.index(next(k for k in keys if k in plain))
        self._label = self._label_column(path, reading.label_from)
        self._split = plain.index("split") if "split" in plain else None
        self._rows: dict[str, list[str]] = {}
        for line, cells in enumerate(rows[1:], start=2):
            if len(cells) != len(self._head):
                raise DataError(f"{path} line {line}: has {len(cells)} cells for {len(self._head)} columns; correct it")
            name = same(cells[self._at].strip())
            if name in self._rows:
                raise DataError(f"{path} line {line}: {name} has a row already; keep one")
            self._rows[name] = [c.strip() for c in cells]
        self._seen = set[str]()

    def _label_column(self, path: Path, wanted: str) -> int:
        """Which column is the label."""
        names = list(map(fold, self._head))
        rest = [c for i, c in enumerate(self._head) if i != self._at]
        found = [fold(wanted)] if wanted else [n for n in ("label", "class") if n in names]
        if (name := only(found, rest, str(path))) in names:
            return names.index(name)
        others = ", ".join(map(quoted, rest))
        what = f"no column {quoted(wanted)}" if wanted else "no column label"
        raise DataError(f"{path}: {what}; choose the label by label_from (--label-from): one of {others}")

    @property
    def splits(self) -> bool:
        """Whether there is a column `split`."""
        return self._split is not None

    def extras(self) -> list[Extra]:
        """Columns that are neither key, label nor split."""
        used = {self._at, self._label, self._split}
        return [extra(c, "column", self.file) for i, c in enumerate(self._head) if i not in used]

    def get(self, name: str, where: str, faults: Faults) -> tuple[str, int, dict[str, str]] | None:
        """(label, part, row) of a key, or None after reporting that it has no row."""
        self._seen.add(same(name))
        cells = self._rows.get(same(name))
        if cells is None:
            faults.add(where, f"label is missing: no row in {self.file}", "add a row, or move the file away")
            return None
        part = 0 if self._split is None else part_of(cells[self._split])
        if part is None:
            what = f"split {cells[self._split or 0]!r} is none of train, val and test"
            faults.add(where, what, f"correct it in {self.file}")
        return cells[self._label], LEFT_OUT if part is None else part, dict(zip(self._head, cells, strict=True))

    def report_unseen(self, faults: Faults) -> None:
        """Report rows that no file belongs to."""
        for name in self._rows.keys() - self._seen:
            faults.add(self.file, f"{self.key} {quoted(name)} is not in this set", "correct or remove the row")
