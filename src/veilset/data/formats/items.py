"""What readers share whose images come one after another, each with its label, part and unit: all but the oldest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.columns import Extra, quoted
from veilset.data.decode import Look, Unfit, as_is, look
from veilset.data.faults import Faults, check_empty, check_units, check_values, takes_bytes
from veilset.data.formats.detect import Glimpse, natural
from veilset.data.formats.folder import note_left
from veilset.data.plain import is_sound
from veilset.data.reading import LEFT_OUT, SPLITS, Reading, check_count, same
from veilset.data.records import Array, Spool, dense, key, small_ints
from veilset.privacy.private import Opened

SILENCE = logging.NullHandler()  # remarks of libraries would stand between our lines; who wants them can ask for them
QUIET = ("pydicom", "tifffile", "PIL")


@dataclass(frozen=True)
class Item:
    """One image of a set.

    Attributes:
        where: the file, and the place in it, for messages.
        label: the class name; "" if it is missing.
        part: index into SPLITS, or LEFT_OUT.
        pixels: a picture file's bytes, or values [H, W] or [H, W, 3]; raises Unfit.
        row: what else is known of it, by the names of the reader's extras.
        aspect: height of a pixel / its width, where the file says it.
    """

    where: str
    label: str
    part: int
    pixels: Callable[[], bytes | Array]
    row: Mapping[str, str] = field(default_factory=dict)
    aspect: float = 1.0


class ItemSource:
    """The base of readers that make items. A reader offers `items` and `extras`.

    Args:
        path: the set.
        reading: how it is read.
    """

    uses: tuple[str, ...] = ()
    bits = ""  # what a draft says of depth, for example "12 bits stored in 16"
    window = ""  # the values that a draft proposes as black and white where they are deeper than 8 bits

    def __init__(self, path: Path, reading: Reading | None = None):
        self._path, self._reading = path, reading or Reading()

    def items(self, faults: Faults, headers: bool = False) -> Iterator[Item]:
        """Every image in order; faults for those that are none. With `headers` pixels are asked of the first only."""
        raise NotImplementedError

    def extras(self) -> list[Extra]:
        """What can be the unit, by names alone."""
        raise NotImplementedError

    def has_test(self) -> bool:
        """Whether one image is of the test split."""
        return any(item.part == 1 for item in self.items(Faults(self._path), headers=True))

    def scan(
        self, info: PublicInfo, split: str, faults: Faults, keep: bool = True, unit: str | None = None
    ) -> Opened | None:
        """Check one split; return it opened. Records are in the order of the items."""
        number, part = {same(c): k for k, c in enumerate(info.classes)}, SPLITS.index(split)
        spool, labels, units, others, left = Spool(info.shape, np.uint8, keep), list[int](), list[int](), set[int](), 0
        for item in self.items(faults):
            left += item.part == LEFT_OUT
            if item.part == LEFT_OUT:
                continue
            label, who = self._label(item, number, faults), self._unit(item, unit, faults)
            if item.part != part:
                others.add(who)
            elif spooled(item, info, faults, spool):
                labels.append(max(label, 0))
                units.append(who)
        self._ends(faults, left)
        y, ids = np.array(labels, np.int64), dense(np.array(units, np.uint64)) if unit else None
        if both := len(others.intersection(units)) if unit else 0:
            faults.add(self._path.name, f"{both} units are in both splits", "give all images of a unit to one split")
        if split == "train":
            check_empty(faults, info, y)
            check_units(faults, info, len(y), ids, self._path.name)
        records = spool.records()
        return Opened(records, small_ints(y, len(info.classes)), ids) if records else None

    def glimpse(self) -> Glimpse:
        """What a draft declaration says: labels, the first image's shape, the count, and who may be the units."""
        faults, names, count = Faults(self._path), set[str](), 0
        first: Look | None = None
        who = {e.name: set[int]() for e in self.extras() if (e.people or e.default) and not e.way}
        for item in self.items(faults, headers=True):
            if item.part == 0:
                self._label(item, None, faults)
                names.add(item.label)
                first, count = first or self._look(item), count + 1
                for name, keys in who.items():
                    keys.add(key(item.row.get(name, "")))
        faults.raise_first()
        check_count(len(names), str(self._path))
        if first is None:
            raise DataError(f"{self._path}: no image of the training split")
        people = {name: len(keys) for name, keys in who.items()}
        classes = tuple(sorted(names, key=natural))
        return Glimpse(classes, first, (0.0, 255.0), count, people)

    def _look(self, item: Item) -> Look:
        """What a draft says of an image, whatever its depth."""
        try:
            data = item.pixels()
            if isinstance(data, bytes):
                return look(data)
        except Unfit as e:
            raise DataError(f"{self._path}: {item.where}: {e}; restore or remove it") from None
        return Look((1 if data.ndim == 2 else 3, data.shape[0], data.shape[1]), self.bits, self.window)

    def _label(self, item: Item, number: Mapping[str, int] | None, faults: Faults) -> int:
        """The index of an item's class, -1 after reporting why there is none; without `number` it may be any."""
        if not item.label:
            faults.add(item.where, "label is missing", "give the class name")
        elif number is not None and same(item.label) not in number:
            faults.add(item.where, f"class {item.label!r} is not declared", "correct it, or declare it (public)")
        return -1 if number is None else number.get(same(item.label), -1)

    def _unit(self, item: Item, unit: str | None, faults: Faults) -> int:
        """The digest of an item's unit id; reports one that is missing."""
        if unit and not item.row.get(unit):
            faults.add(item.where, f"{unit} is missing", "give the unit id (for example of the patient)")
        return key(item.row.get(unit, "")) if unit else 0

    def _ends(self, faults: Faults, left: int) -> None:
        """What is said once all items were seen."""
        note_left(left, faults, self._path.name)


def spooled(item: Item, info: PublicInfo, faults: Faults, spool: Spool) -> bool:
    """Add an item's pixels to the spool, or report why not."""
    try:
        if item.aspect != 1:
            raise Unfit(f"has pixels that are not square (height {item.aspect:.3g} times the width)", True)
        data = item.pixels()
        if not spool.keeps and isinstance(data, bytes) and takes_bytes(info) and is_sound(data, info.shape):
            spool.skip(1)
            return True
        row = as_is(data, info)[None] if isinstance(data, bytes) else _fitting(data, info)[None]
    except Unfit as e:
        if e.convertible:
            faults.convert(item.where, str(e), e.options)
        else:
            faults.add(item.where, str(e), "restore or remove it")
        return False
    check_values(faults, info, row, 0, item.where)
    spool.append(row)
    return True


def _fitting(values: Array, info: PublicInfo) -> Array:
    """Values [H, W] or [H, W, 3] as uint8 [C, H, W] of the declared shape. Raises Unfit."""
    a = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    if a.dtype != np.uint8:
        raise Unfit("has more than 8 bits (give the values that become black and white)", True, "--window 0,4095")
    if a.shape != info.shape:
        options = f"--size {info.shape[1]}x{info.shape[2]}{' --grey' if info.shape[0] < a.shape[0] else ''}"
        raise Unfit(f"is {list(a.shape)}, declared are {list(info.shape)}", True, options)
    return a


def windowed(values: Array, low: float, high: float) -> Array:
    """Values as uint8: low and below become 0, high and above 255. Raises Unfit for NaN."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Unfit("holds NaN or infinity; repair or remove it")
    if values.dtype in (np.uint16, np.int16) and values.dtype.isnative:
        return _shades(values.dtype.str, low, high)[values.view(np.uint16)]
    return _scaled(values, low, high)


def _scaled(values: Array, low: float, high: float) -> Array:
    scaled: Array = np.rint((values.astype(np.float64) - low) * (255.0 / (high - low))).clip(0, 255).astype(np.uint8)
    return scaled


@lru_cache(maxsize=8)
def _shades(kind: str, low: float, high: float) -> Array:
    """What `_scaled` gives for each value of 16 bits, by its bits: looked up ten times as fast as computed."""
    return _scaled(np.arange(1 << 16, dtype=np.uint16).view(kind), low, high)


def inside(name: str) -> bool:
    """Whether a name in an archive or table is a plain path below where it lies."""
    return bool(name) and not (name.startswith("/") or "\\" in name or ":" in name[:3] or ".." in name.split("/"))


def only(found: Sequence[str], names: Sequence[str], where: str) -> str:
    """The one column (key) that could be the label, "" if there is none.

    Raises:
        DataError: several; says which.
    """
    if len(found) > 1:
        which, rest = " and ".join(map(quoted, found)), ", ".join(map(quoted, names))
        raise DataError(f"{where}: {which} could both be the label; choose by label_from (--label-from): one of {rest}")
    return found[0] if found else ""


def library(name: str, extra: str) -> Any:
    """A reader's library.

    Raises:
        DataError: it is not installed; says how to.
    """
    for logger in QUIET:
        logging.getLogger(logger).addHandler(SILENCE)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it has a handler of its own
    try:
        return import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise DataError(f"{package} is needed to read this set: pip install 'veilset[{extra}]'") from None


def text(value: object) -> str:
    """A value of a table as the text that names it: 3.0 is "3", None is ""."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
