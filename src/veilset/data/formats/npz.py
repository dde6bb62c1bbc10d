"""NumPy .npz files: x with y and perhaps unit, streamed out of the archive; objects (pickle) are never opened."""

from __future__ import annotations

import contextlib
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.columns import Extra, extra, quoted
from veilset.data.decode import Look
from veilset.data.faults import Faults, check_empty, check_labels, check_units, check_values
from veilset.data.formats.detect import Glimpse, natural
from veilset.data.formats.folder import note_left
from veilset.data.reading import Numbers, Reading, check_count, same
from veilset.data.records import Array, FileRecords, Spool, dense, key, rows_per_chunk, small_ints
from veilset.privacy.private import Opened

# Member names that are understood: (pixels, labels), the first that are there.
MEMBERS = {
    "train": (("x", "y"), ("x_train", "y_train"), ("train_images", "train_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
CLASSES = "classes"  # the class names, for a draft
LEFT = ("x_val", "val_images")  # pixels of a validation part, which nothing reads
# What zipfile and numpy raise for a damaged archive (numpy parses an array header as Python).
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
)
SPLIT_NAME = re.compile(r"(?i)(?P<first>train|val|test)_(?P<rest>.+)|(?P<tail>.+)_(?P<last>train|val|test)")
COLUMN = re.compile(r"\[(\d+)\]$")  # y[3]
RESTORE = "restore the file or write it again with numpy.savez"


class NpzSource:
    """One .npz file.

    Args:
        reading: which array, or column of one, is the label.
        path: the file. x is [N, H, W], [N, C, H, W] or [N, H, W, C]; y [N] class numbers or names;
            unit [N] numbers or texts.
    """

    uses: tuple[str, ...] = ("label_from", "label_offset")

    def __init__(self, path: Path, reading: Reading | None = None):
        self._path, self._reading = path, reading or Reading()

    def has_test(self) -> bool:
        """Whether the archive has a member x_test (or test_images)."""
        with _archive(self._path, Faults(self._path)) as z:
            return _members(z, "test") is not None

    def extras(self) -> list[Extra]:
        """The other arrays, those of both splits under one name."""
        with _archive(self._path, Faults(self._path)) as z:
            if z is None:
                return []
            read = {n for split in MEMBERS for n in self._names(z, split, Faults(self._path)) or ()}
            used = {_base(n)[0] for n in read} | {CLASSES}
            pairs: dict[str, list[str]] = {}
            for name in _stems(z):
                if name not in read | {CLASSES} and not (_base(name)[0] in used and _base(name)[1] != "train"):
                    pairs.setdefault(_base(name)[0], []).append(name)
            where = self._path.name
            return [extra(own[0] if len(own) == 1 else base, "array", where, base) for base, own in pairs.items()]

    def scan(
        self, info: PublicInfo, split: str, faults: Faults, keep: bool = True, unit: str | None = None
    ) -> Opened | None:
        """Check one split; return it opened, or None if it cannot be."""
        with _archive(self._path, faults) as z:
            names = self._names(z, split, faults)
            if z is None or names is None:
                return None
            records, count = _pixels(z, names[0], info, faults, keep)
            labels = self._labels(z, names[1], info, faults)
            ids = _array(z, unit, split, faults)
            keys = _units(z, ids, faults) if ids else None
            for name, a in ((names[1], labels), (ids, keys)):
                if a is not None and count is not None and len(a) != count:
                    kind = "missing" if len(a) < count else "extra"
                    faults.add(f"array {name}", f"{len(a)} entries for {count} images: {kind}", "give one per image")
                    return None
            units = None if keys is None else dense(keys)
            if keys is not None:
                _check_split(z, _array(z, unit, "test" if split == "train" else "train"), unit, keys, faults)
            _note_left(z, faults, self._path.name)
            if labels is not None and split == "train":
                check_empty(faults, info, labels)
            if count is not None and split == "train":
                check_units(faults, info, count, units, self._path.name)
            return None if records is None or labels is None else Opened(records, labels, units)

    def glimpse(self) -> Glimpse:
        """What a draft declaration says: class names, the shape, the count; value_range by dtype, never by values."""
        faults = Faults(self._path)
        axes: tuple[int, ...] = ()
        kind = np.dtype(np.uint8)
        with _archive(self._path, faults) as z:
            names = self._names(z, "train", faults)
            faults.raise_first()
            assert z is not None and names is not None, "what prevents it was reported"
            with _reported(names[0], faults), _member(z, names[0]) as (_, axes, kind):
                pass
            classes = self._class_names(z, names[1], faults)
            faults.raise_first()
            people = {}
            for e in self.extras():
                ids = _array(z, e.name, "train") if e.people else None
                keys = _units(z, ids, Faults(self._path)) if ids else None  # unfit ones are offered without a count
                if keys is not None:
                    people[e.name] = len(np.unique(keys))
        span = (0.0, 255.0) if kind == np.uint8 else (0.0, 1.0)
        return Glimpse(
            classes, Look(_guess_chw(axes), "" if kind == np.uint8 else f"{kind} values"), span, axes[0], people
        )

    def _names(self, z: zipfile.ZipFile | None, split: str, faults: Faults) -> tuple[str, str] | None:
        """The arrays that are pixels and labels of a split, or None after reporting why there are none."""
        found = _members(z, split)
        if z is None:
            return None
        if found is None:
            faults.add(self._path.name, "no arrays x and y in it", "write it with numpy.savez(file, x=..., y=...)")
            return None
        if not self._reading.label_from:
            return found
        name = COLUMN.sub("", self._reading.label_from)
        chosen = name if name in _stems(z) and split == "train" else _array(z, name, split)
        if chosen is None:
            what = f"label_from = {quoted(self._reading.label_from)}: no such array for the {split} split"
            faults.add(self._path.name, what, f"it has {', '.join(_stems(z))}; name one, or a column as y[0]")
            return None
        return found[0], chosen

    @property
    def _place(self) -> int | None:
        """The column of the array of labels that is chosen, or None."""
        m = COLUMN.search(self._reading.label_from)
        return int(m[1]) if m else None

    def _class_names(self, z: zipfile.ZipFile, name: str, faults: Faults) -> tuple[str, ...]:
        """Class names for a draft: an array `classes`, else the texts in y, else the numbers that occur."""
        words, numbers = set[str](), set[int]()
        with _reported(name, faults):
            for rows in _column(z, name, self._place):
                seen = np.unique(rows).tolist()
                if rows.dtype.kind == "U":
                    words.update(seen)
                else:
                    numbers.update(map(int, seen))
                if "" in words:
                    raise _Unfit("holds an empty text: a label is missing", "give the class name")
                check_count(len(words) + len(numbers), f"array {name}")
        if not words and CLASSES in _stems(z) and self._place is None:
            with _reported(CLASSES, faults):
                return tuple(str(c) for rows in _column(z, CLASSES) for c in rows.tolist())
        return tuple(sorted(words, key=natural)) or tuple(map(str, sorted(numbers) or [0]))

    def _labels(self, z: zipfile.ZipFile, name: str, info: PublicInfo, faults: Faults) -> Array | None:
        """Labels [n] as indices into the declared classes, or None after reporting."""
        with _reported(name, faults):
            number = {same(c): i for i, c in enumerate(info.classes)}
            numbers, parts, done = Numbers(info.classes, self._reading), [np.zeros(0, np.uint8)], 0
            for rows in _column(z, name, self._place):
                if rows.dtype.kind == "U":
                    words, inverse = np.unique(rows, return_inverse=True)
                    for w in words.tolist():
                        if same(w) not in number:
                            at, what = done + int(np.flatnonzero(rows == w)[0]), f"class {w!r} is not declared"
                            faults.add(f"array {name} record {at}", what, "correct or declare it")
                    part = np.array([number.get(same(w), 0) for w in words.tolist()])[inverse.reshape(-1)]
                else:
                    part = check_labels(faults, numbers, rows, f"array {name}", done).clip(0)
                parts.append(small_ints(part, len(number)))
                done += len(rows)
            return np.concatenate(parts[1:] or parts)
        return None


def _note_left(z: zipfile.ZipFile, faults: Faults, where: str) -> None:
    """Count the images of a validation part."""
    for name in LEFT:
        if name in _stems(z):
            with _reported(name, faults), _member(z, name) as (_, shape, _kind):
                note_left(shape[0] if shape else 0, faults, where)


def lone_pixels(path: Path, info: PublicInfo, faults: Faults) -> FileRecords | None:
    """The images of an archive of which no labels are asked for: its array x. None after reporting what is wrong."""
    with _archive(path, faults) as z:
        if z is not None and "x" not in _stems(z):
            faults.add(path.name, "no array x in it", "write it with numpy.savez(file, x=...)")
        return None if z is None or faults.found else _pixels(z, "x", info, faults, True)[0]


def _members(z: zipfile.ZipFile | None, split: str) -> tuple[str, str] | None:
    """The first naming scheme whose pixels and labels are in the archive."""
    return next((m for m in MEMBERS[split] if set(m) <= {*_stems(z)}), None) if z else None


def _base(name: str) -> tuple[str, str]:
    """An array's name without the split it is for, and that split: "unit_test" is ("unit", "test")."""
    m = SPLIT_NAME.fullmatch(name)
    return (m["rest"] or m["tail"], (m["first"] or m["last"]).lower()) if m else (name, "train")


def _array(z: zipfile.ZipFile, unit: str | None, split: str, faults: Faults | None = None) -> str | None:
    """The array of this split that holds the unit, or None; reports if there is none, or more than one."""
    if unit is None:
        return None
    found = [n for n in _stems(z) if _base(n) == (_base(unit)[0], split)]
    if faults and len(found) > 1:
        faults.add(f"array {unit}", f"{' and '.join(found)} are both for the {split} split", "keep one of them")
    if faults and not found and split == "train":
        faults.add(f"array {unit}", "has no entries for the training split", "add them, or declare another unit")
    elif faults and not found:
        faults.note(f"array {unit}", "has no entries for the test split", "a unit in both splits is not seen")
    return found[0] if found else None


def _check_split(z: zipfile.ZipFile, other: str | None, unit: str | None, keys: Array, faults: Faults) -> None:
    """Report units that are in the array of the other split too."""
    theirs = _units(z, other, faults) if other else None
    both = 0 if theirs is None else len(np.intersect1d(keys, theirs))
    if both:
        faults.add(f"array {unit}", f"{both} units are in both splits", "give all images of a unit to one split")


def _stems(z: zipfile.ZipFile) -> list[str]:
    """Names of the arrays in the archive, in its order."""
    return [n[:-4] for n in z.namelist() if n.endswith(".npy")]


@contextlib.contextmanager
def _archive(path: Path, faults: Faults) -> Iterator[zipfile.ZipFile | None]:
    """The open archive, or None after reporting that it is not one."""
    try:
        z = zipfile.ZipFile(path)
    except BROKEN:
        faults.add(path.name, "not an .npz archive, or cut short", RESTORE)
        yield None
        return
    with z:
        yield z


@contextlib.contextmanager
def _member(z: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """An array's bytes behind its header, its shape and dtype. Raises _Unfit, or one of BROKEN."""
    with z.open(f"{name}.npy") as f:
        version = npy.read_magic(f)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"array format {version}")
        shape, fortran, dtype = read(f)
        if dtype.hasobject:
            raise _Unfit("holds Python objects, which are never opened", "save plain numbers or texts")
        if fortran and len(shape) > 1:
            raise _Unfit("is stored column by column", "save numpy.ascontiguousarray of it")
        yield f, shape, dtype


class _Unfit(Exception):
    """An array that cannot be used: what is wrong, and what to do."""


@contextlib.contextmanager
def _reported(name: str, faults: Faults) -> Iterator[None]:
    """Turn what can be wrong with one array into one fault."""
    try:
        yield
    except DataError:  # the disk is full: nothing is wrong with the array
        raise
    except _Unfit as e:
        faults.add(f"array {name}", e.args[0], e.args[1])
    except BROKEN as e:
        faults.add(f"array {name}", f"damaged or cut short ({e or type(e).__name__})", RESTORE)


def _chunks(f: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], step: int) -> Iterator[Array]:
    """The array in pieces of up to `step` rows. Raises EOFError if it ends early, _Unfit if something follows it."""
    size = int(np.prod(shape[1:])) * dtype.itemsize
    done = 0
    while done < shape[0]:
        n = min(step, shape[0] - done)
        data = b"".join(_pieces(f, n * size))
        if len(data) < n * size:
            raise EOFError(f"holds {done + len(data) // max(size, 1)} of {shape[0]} rows")
        yield np.frombuffer(data, dtype).reshape(n, *shape[1:])
        done += n
    if f.read(1):
        raise _Unfit("has trailing bytes", RESTORE)


def _pieces(f: IO[bytes], n: int) -> Iterator[bytes]:
    while n > 0 and (part := f.read(min(n, 1 << 20))):
        yield part
        n -= len(part)


def _guess_chw(axes: tuple[int, ...]) -> tuple[int, int, int]:
    """The image shape that axes [N, ...] most likely mean, for a draft."""
    if len(axes) == 3:
        return (1, axes[1], axes[2])
    if len(axes) != 4:
        raise DataError(f"x has {len(axes)} axes: must be [N, H, W], [N, C, H, W] or [N, H, W, C]")
    first = axes[1] in (1, 3) and axes[3] not in (1, 3)
    return (axes[1], axes[2], axes[3]) if first or axes[3] not in (1, 3) else (axes[3], axes[1], axes[2])


def _to_chw(axes: tuple[int, ...], shape: tuple[int, int, int]) -> tuple[int, ...] | None:
    """How to transpose a chunk [n, *axes] to [n, C, H, W] (grey gets its channel), or None if it does not fit."""
    if axes == shape or (len(axes) == 2 and (1, *axes) == shape):
        return tuple(range(len(axes) + 1))
    return (0, 3, 1, 2) if len(axes) == 3 and (axes[2], axes[0], axes[1]) == shape else None


def _pixels(
    z: zipfile.ZipFile, name: str, info: PublicInfo, faults: Faults, keep: bool
) -> tuple[FileRecords | None, int | None]:
    """Check the pixels and decode them into an unnamed temporary file: (records or None, count or None)."""
    with _reported(name, faults), _member(z, name) as (f, shape, dtype):
        if dtype != np.uint8 and dtype.kind != "f":
            raise _Unfit(f"wrong dtype {dtype}", "save uint8, or float32 with its value_range declared")
        order = _to_chw(shape[1:], info.shape)
        if order is None:
            raise _Unfit(
                f"images are {list(shape[1:])}, declared shape is {list(info.shape)}",
                "correct the declaration or the array",
            )
        kind = np.dtype(np.uint8 if dtype == np.uint8 else np.float32)
        spool, done = Spool(info.shape, kind, keep), 0
        for rows in _chunks(f, shape, dtype, rows_per_chunk(info.shape, dtype.itemsize)):
            with np.errstate(over="ignore"):  # what overflows float32 becomes infinite and is reported
                rows = rows.transpose(order).reshape(-1, *info.shape).astype(kind, copy=False)
            check_values(faults, info, rows, done, f"array {name}")
            spool.append(rows)
            done += len(rows)
        return spool.records(), shape[0]
    return None, None


def _column(z: zipfile.ZipFile, name: str, place: int | None = None) -> Iterator[Array]:
    """An array [N] or [N, 1] of whole numbers or texts, or column `place` of one [N, K], in pieces."""
    with _member(z, name) as (f, shape, dtype):
        if len(shape) == 2 and shape[1] > 1 and place is None:
            base = _base(name)[0]
            raise _Unfit(
                f"has shape {list(shape)}: {shape[1]} labels an image (multi-label)",
                f'choose one column, label_from = "{base}[0]" (--label-from "{base}[0]") to "{base}[{shape[1] - 1}]"',
            )
        if len(shape) not in (1, 2) or (place or 0) >= (shape[1] if len(shape) == 2 else 1):
            raise _Unfit(f"has shape {list(shape)}", "give one entry for each image, or name a column that it has")
        if dtype.kind not in "biuUS":
            raise _Unfit(f"wrong dtype {dtype}", "save whole numbers or texts")
        for rows in _chunks(f, shape, dtype, 65536):
            rows = rows.reshape(len(rows), -1)[:, place or 0]
            rows = rows.astype(np.uint8) if dtype.kind == "b" else rows
            yield rows.astype(np.str_) if dtype.kind == "S" else rows


def _units(z: zipfile.ZipFile, name: str, faults: Faults) -> Array | None:
    """Unit keys uint64 [n] (texts by digest), or None after reporting."""
    with _reported(name, faults):
        parts = [np.zeros(0, np.uint64)]
        for rows in _column(z, name):
            texts = rows.dtype.kind == "U"
            part = np.fromiter(map(key, rows.tolist()), np.uint64) if texts else rows.astype(np.int64).view(np.uint64)
            parts.append(part)
        return np.concatenate(parts)
    return None
