"""Hugging Face's forms, by pyarrow: data sets saved to disk, and parquet shards, with Image and ClassLabel features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from veilset.core.errors import DataError
from veilset.data.columns import Extra, extra, fold, quoted
from veilset.data.decode import Unfit
from veilset.data.faults import Faults
from veilset.data.formats.detect import natural
from veilset.data.formats.folder import below, has_pictures
from veilset.data.formats.guard import check_survives
from veilset.data.formats.items import Item, ItemSource, inside, library, text
from veilset.data.reading import part_in

SAVED, SPLITS_OF = "state.json", "dataset_dict.json"  # of one split, and of several
LABELS = ("label", "labels", "class")
ROWS = 256  # rows that are in memory at a time


def is_hub(path: Path) -> bool:
    """Whether a path is a data set saved to disk, a parquet file, or a folder of parquet shards."""
    if path.is_file():
        return path.suffix == ".parquet"
    if (path / SAVED).is_file() or (path / SPLITS_OF).is_file():
        return True
    inner = [path, *(p for p in path.iterdir() if p.is_dir())]
    return any(p.suffix == ".parquet" for d in inner for p in d.iterdir()) and not has_pictures(path)


@dataclass(frozen=True)
class Shard:
    """One file of rows and the part that it is of."""

    path: Path
    part: int


@dataclass(frozen=True)
class Columns:
    """What the columns of a shard are.

    Attributes:
        names: all, in order.
        image: the column of pictures.
        label: the column of labels.
        classes: the names of a ClassLabel, or None where a label is a text or number itself.
    """

    names: tuple[str, ...]
    image: str
    label: str
    classes: tuple[str, ...] | None


class HubSource(ItemSource):
    """Shards of rows, each with a picture's bytes and a label."""

    uses: tuple[str, ...] = ("label_from",)

    def has_test(self) -> bool:
        """Whether a shard is of the test split."""
        return any(s.part == 1 for s in self._shards)

    def extras(self) -> list[Extra]:
        """The columns that are neither picture nor label."""
        c = self._columns
        return [extra(n, "column", self._path.name) for n in c.names if n not in (c.image, c.label) and n != "split"]

    @cached_property
    def _shards(self) -> list[Shard]:
        found = self._found()
        check_survives(s.path for s in found)
        return found

    def _found(self) -> list[Shard]:
        """The shards by their names."""
        root = self._path
        if (root / SPLITS_OF).is_file():
            names = [n for n in _json(root / SPLITS_OF).get("splits", []) if isinstance(n, str) and inside(n)]
            return [Shard(p, part_in(n)) for n in names for p in _saved(root / n)]
        if (root / SAVED).is_file():
            return [Shard(p, part_in(str(_json(root / SAVED).get("_split") or ""))) for p in _saved(root)]
        files = [root] if root.is_file() else [p for p in below(root) if p.suffix == ".parquet"]
        found = [Shard(p, part_in(p.relative_to(root).as_posix() if p != root else p.name)) for p in files]
        return sorted(found, key=lambda s: natural(s.path.as_posix()))

    @cached_property
    def _columns(self) -> Columns:
        return self._columns_of(self._shards[0].path)

    def _columns_of(self, path: Path) -> Columns:
        """Which column is what, by the features that a shard carries, or by its types and names.

        Raises:
            DataError: no column of pictures or of labels, or several.
        """
        with _opened(path) as (schema, _):
            kinds = _features(schema, path)
            names = tuple(n for n in schema.names if n != "__index_level_0__")
            images = [n for n in names if kinds.get(n, {}).get("_type") == "Image" or _holds_pictures(schema.field(n))]
            labels = [n for n in names if kinds.get(n, {}).get("_type") == "ClassLabel"]
        if len(images) != 1:
            what = f"has {len(images)} columns of pictures ({', '.join(map(quoted, images or names))})"
            raise DataError(f"{path}: {what}; one is needed, of a feature Image or of bytes")
        wanted = self._reading.label_from
        found = [n for n in names if fold(n) == fold(wanted)] if wanted else labels or [n for n in names if n in LABELS]
        if len(found) != 1:
            what = f"no column {quoted(wanted)}" if wanted else f"{len(found)} columns could be the label"
            rest = ", ".join(quoted(n) for n in names if n not in images)
            raise DataError(f"{path}: {what}; choose it by label_from (--label-from): one of {rest}")
        named = kinds.get(found[0], {}).get("names") if kinds.get(found[0], {}).get("_type") == "ClassLabel" else None
        return Columns(names, images[0], found[0], tuple(map(str, named)) if named else None)

    def items(self, faults: Faults, headers: bool = False) -> Iterator[Item]:
        """Every row of every shard."""
        wanted = self._columns
        for shard in self._shards:
            where = shard.path.relative_to(self._path).as_posix() if shard.path != self._path else shard.path.name
            try:
                own = self._columns_of(shard.path)
            except DataError as e:
                faults.add(where, str(e).removeprefix(f"{shard.path}: "), "write the shards alike")
                continue
            if own != wanted:
                faults.add(where, _difference(own, wanted), "write the shards alike")
                continue
            for i, row in self._rows(shard, where, headers, faults):
                yield self._item(shard, f"{where} row {i}", i, row)

    def _item(self, shard: Shard, where: str, i: int, row: dict[str, Any]) -> Item:
        c = self._columns
        value = row[c.label]
        if isinstance(value, list):
            raise DataError(f"{where}: {quoted(c.label)} holds several labels an image; name another by --label-from")
        label = text(value)
        if c.classes is not None:
            label = c.classes[value] if isinstance(value, int) and 0 <= value < len(c.classes) else ""
        rest = {n: text(v) for n, v in row.items() if n not in (c.image, c.label) and isinstance(v, str | int | float)}

        def pixels() -> bytes:
            whole = row if c.image in row else self._row(shard, where, i)
            picture = whole.get(c.image)
            data = picture.get("bytes") if isinstance(picture, dict) else picture
            if not data:
                raise Unfit("holds no bytes, only the path of a picture; write it with the pictures embedded")
            return bytes(data)

        return Item(where, label, shard.part, pixels, rest)

    def _row(self, shard: Shard, where: str, i: int) -> dict[str, Any]:
        """Row i of a shard with its picture; empty if it cannot be read."""
        return next((row for k, row in self._rows(shard, where, False, Faults(self._path)) if k == i), {})

    def _rows(self, shard: Shard, where: str, plain: bool, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row) of each row; without its picture if `plain`."""
        pyarrow = library("pyarrow", "parquet")
        names = [n for n in self._columns.names if not (plain and n == self._columns.image)]
        i = 0
        try:
            with _opened(shard.path) as (_, batches):
                for batch in batches(names):
                    batch.validate(full=True)  # else a damaged one may end the process below
                    for k in range(batch.num_rows):
                        yield i, {n: batch.column(n)[k].as_py() for n in batch.schema.names if n in names}
                        i += 1
        except (pyarrow.ArrowException, OSError) as e:
            faults.add(where, f"damaged or cut short ({' '.join(str(e).split())[:60]})", "restore the shard")


class _opened:  # noqa: N801 it is used as a function
    """A shard's schema, and a function: names of columns -> its batches."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> tuple[Any, Any]:
        pyarrow = library("pyarrow", "parquet")
        try:
            if self._path.suffix == ".parquet":
                parquet = library("pyarrow.parquet", "parquet")
                self._file = parquet.ParquetFile(self._path)
                return self._file.schema_arrow, lambda names: self._file.iter_batches(ROWS, columns=names)
            ipc = library("pyarrow.ipc", "parquet")
            self._file = ipc.open_stream(pyarrow.OSFile(str(self._path)))
            return self._file.schema, lambda names: self._file
        except (pyarrow.ArrowException, OSError) as e:
            short = " ".join(str(e).split())[:60]
            raise DataError(f"{self._path}: damaged or cut short ({short}); restore the shard") from None

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found
    except (OSError, ValueError, AssertionError):
        raise DataError(f"{path}: cannot be read; save the data set again") from None


def _saved(folder: Path) -> list[Path]:
    """The files of one split that was saved to disk, which must lie in its folder."""
    state = _json(folder / SAVED)
    names = [str(f.get("filename", "")) for f in state.get("_data_files", []) if isinstance(f, dict)]
    for name in names:
        if not inside(name) or not (folder / name).is_file():
            raise DataError(f"{folder / SAVED}: {name!r} is not a file in that folder; save the data set again")
    if not names:
        raise DataError(f"{folder / SAVED}: names no files; save the data set again")
    return [folder / n for n in names]


def _features(schema: Any, path: Path) -> dict[str, Any]:
    """The features that a shard, or the file beside it, declares; none if it declares none."""
    beside = path.parent / "dataset_info.json"
    found = (schema.metadata or {}).get(b"huggingface")
    try:
        facts = json.loads(found).get("info", {}) if found else _json(beside) if beside.is_file() else {}
        kinds = facts.get("features") or {}
        return {n: v for n, v in kinds.items() if isinstance(v, dict)}
    except (ValueError, AttributeError):
        return {}


def _holds_pictures(f: Any) -> bool:
    """Whether a column is bytes, or a pair of bytes and path."""
    kind = str(f.type)
    return kind in ("binary", "large_binary") or (kind.startswith("struct<") and "bytes: " in kind and "path: " in kind)


def _difference(own: Columns, wanted: Columns) -> str:
    """What two shards disagree about."""
    if own.classes != wanted.classes:
        pair = f"{list(own.classes or ())}, not {list(wanted.classes or ())}"
        return f"names the classes of {quoted(own.label)} otherwise than the first shard: {pair}"
    return f"has the columns {', '.join(own.names)}, the first shard has {', '.join(wanted.names)}"
