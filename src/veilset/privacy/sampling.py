"""Poisson sampling of units: the only place where private records are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from veilset.privacy.noise import Stream
from veilset.privacy.private import Opened

Array = np.ndarray[Any, Any]


class Units:
    """The records of every unit, capped, and the order in which to read them.

    A unit keeps its first `cap` images in record order: a rule that looks at no other unit.

    Attributes:
        count: number of units present (private).
        part: [count] the class of each unit's first image; a unit belongs to that part of the class partition only.
    """

    def __init__(self, opened: Opened, cap: int):
        n = len(opened.labels)
        if opened.units is None:
            self.count, self._order, self._start = n, None, None
            self.part = opened.labels
            return
        order = np.argsort(opened.units, kind="stable").astype(np.int64)
        sorted_units = opened.units[order]
        start = np.flatnonzero(np.r_[True, sorted_units[1:] != sorted_units[:-1]]) if n else np.zeros(0, np.int64)
        rank = np.arange(n) - np.repeat(start, np.diff(np.r_[start, n]))
        order = order[rank < cap]
        kept = np.minimum(np.diff(np.r_[start, n]), cap)
        self.count = len(start)
        self._order, self._start = order, np.r_[0, np.cumsum(kept)].astype(np.int64)
        self.part = opened.labels[order[self._start[:-1]]]

    def sample(self, rate: float, stream: Stream, part: int | None = None) -> Array:
        """Indices of units that take part: each by itself with probability `rate` (to 2^-64); rate 1 is everybody."""
        if rate == 1:
            chosen = np.arange(self.count)
        else:
            chosen = np.flatnonzero(stream.uint64(self.count) < np.uint64(min(int(rate * 2.0**64), 2**64 - 1)))
        return chosen if part is None else chosen[self.part[chosen] == part]

    def chunks(self, chosen: Array, size: int) -> Iterator[tuple[Array, Array, Array]]:
        """Cut the records of chosen units, in order, into chunks of `size`; only the last one may be shorter.

        A unit's images may lie in several chunks.

        Yields:
            (records [n], place of each record's unit in `chosen` [n], how many images that unit has [n]).
        """
        if self._start is None or self._order is None:
            for i in range(0, len(chosen), size):
                records = chosen[i : i + size]
                yield records, np.arange(i, i + len(records)), np.ones(len(records), np.int64)
            return
        lengths = (self._start[1:] - self._start[:-1])[chosen]
        ends = np.cumsum(lengths)
        for i in range(0, int(ends[-1]) if len(ends) else 0, size):
            place = np.arange(i, min(i + size, int(ends[-1])))
            unit = np.searchsorted(ends, place, side="right")
            first = self._start[chosen[unit]] - (ends - lengths)[unit]
            yield self._order[first + place], unit, lengths[unit]
