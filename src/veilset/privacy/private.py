"""Opaque private images. Only the gate opens them; this guards against mistakes, not against hostile Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

from veilset.core.errors import DataError, ModeError
from veilset.core.types import PublicInfo


class Records(Protocol):
    """Where the stored pixels lie. `read` uses positioned reads into the caller's buffer, never a map of the file."""

    count: int
    dtype: np.dtype[Any]

    def read(self, index: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> None:
        """Fill out [n, C, H, W] with the stored values of records index [n] (int64, ascending)."""


@dataclass(frozen=True, repr=False)
class Opened:
    """What the gate gets: pixels to read, labels [n] in 0..K-1, dense unit ids [n] (None: one image per unit)."""

    records: Records
    labels: np.ndarray[Any, Any]
    units: np.ndarray[Any, Any] | None = None


class PrivateImages:
    """Private labelled images: no length, no iteration, no index, no copy, no content in its repr.

    Args:
        info: the declared facts.
        opener: checks the files and opens them; called by the gate, at most once.

    Examples:
        >>> vs.load("digits").train
        PrivateImages('digits', declared: 1437 units, 10 classes, shape [1, 8, 8])
    """

    __slots__ = ("__inner", "__opener", "info")

    def __init__(self, info: PublicInfo, opener: Callable[[], Opened]):
        self.info = info
        self.__opener = opener
        self.__inner: Opened | None = None

    def _open(self) -> Opened:
        """For veilset.privacy.gate only (a test searches the sources for other callers)."""
        if self.__inner is None:
            self.__inner = self.__opener()
        return self.__inner

    def check(self) -> None:
        """Find file faults now, before anything is planned or written. Speaks to the owner; outside the guarantee.

        Raises:
            DataError: the first fault, in one line.
        """
        self._open()

    def __repr__(self) -> str:
        i = self.info
        return f"PrivateImages({i.name!r}, declared: {i.units} units, {len(i.classes)} classes, shape {list(i.shape)})"

    def _closed(self, *_: Any) -> NoReturn:
        raise ModeError(
            "private images cannot be counted, indexed, iterated, copied or pickled; fit a method, or see gate.inspect"
        )

    __len__ = __iter__ = __getitem__ = __contains__ = __reduce__ = __copy__ = __array__ = _closed

    def __deepcopy__(self, memo: Any) -> NoReturn:
        self._closed()


def from_arrays(
    info: PublicInfo, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], units: np.ndarray[Any, Any] | None = None
) -> PrivateImages:
    """Hide arrays that are already in memory: x [n, C, H, W], y [n] in 0..K-1, units [n] dense ids or None."""
    return PrivateImages(info, lambda: Opened(InMemory(x), y, units))


def restricted(data: PrivateImages, info: PublicInfo, one_class: bool) -> PrivateImages:
    """The records of some classes of a set: which they are is decided here, by the label, when the gate opens them.

    A unit that is added to the set or removed adds or removes one unit here, or none. With `one_class` a unit can be
    in no other restriction with other classes.

    Args:
        data: the whole set.
        info: declared facts of the part; its classes are some of the set's, in any order.
        one_class: every unit of the whole set holds images of one class; the set is refused if that is not so.
    """
    place = np.array([info.classes.index(name) if name in info.classes else -1 for name in data.info.classes])

    def open_part() -> Opened:
        whole = data._open()  # noqa: SLF001 of its own kind
        labels, units = place[whole.labels], whole.units
        if one_class and units is not None:
            pairs = np.unique(np.stack([units, whole.labels]), axis=1).shape[1]
            if pairs != len(np.unique(units)):
                raise DataError("unit: one holds images of several classes, but one class per unit was declared")
        chosen = np.flatnonzero(labels >= 0)
        if not len(chosen):
            raise DataError(f"classes = {list(info.classes)}: the set holds no image of them yet; nothing was asked")
        dense = None if units is None else np.unique(units[chosen], return_inverse=True)[1]
        return Opened(Chosen(whole.records, chosen), labels[chosen], dense)

    return PrivateImages(info, open_part)


class Chosen:
    """Some of the records, in their order."""

    def __init__(self, records: Records, chosen: np.ndarray[Any, Any]):
        self._records, self._chosen, self.count, self.dtype = records, chosen, len(chosen), records.dtype

    def read(self, index: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> None:
        """As `Records.read`."""
        self._records.read(self._chosen[index], out)


class InMemory:
    """Records that are an array already."""

    def __init__(self, x: np.ndarray[Any, Any]):
        self._x, self.count, self.dtype = x, len(x), x.dtype

    def read(self, index: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> None:
        """As `Records.read`."""
        np.take(self._x, index, axis=0, out=out)
