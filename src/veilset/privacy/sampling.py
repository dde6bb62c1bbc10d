"""Poisson sampling of units: the only place where private records are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from veilset.privacy.noise import Stream
from veilset.privacy.private import Opened


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

    def sample(self, rate: float, stream: Stream, part: int | None = None) -> np.ndarray[Any, Any]:
        """Indices of units that take part: each by itself with probability `rate` (to 2^-64); rate 1 is everybody."""
        if rate == 1:
            chosen = np.arange(self.count)
        else:
            chosen = np.flatnonzero(stream.uint64(self.count) < np.uint64(min(int(rate * 2.0**64), 2**64 - 1)))
        return chosen if part is None else chosen[self.part[chosen] == part]

    def chunks(
        self, chosen: np.ndarray[Any, Any], size: int
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Yield (records [n], place of each record's unit within the chunk [n]): about `size` records, whole units."""
        if self._start is None or self._order is None:
            for i in range(0, len(chosen), size):
                records = chosen[i : i + size]
                yield records, np.arange(len(records))
            return
        lengths = (self._start[1:] - self._start[:-1])[chosen]
        cut = np.cumsum(lengths) // max(size, 1)
        for block in np.split(np.arange(len(chosen)), np.flatnonzero(np.diff(cut)) + 1) if len(chosen) else []:
            first, length = self._start[chosen[block]], lengths[block]
            within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
            yield self._order[np.repeat(first, length) + within], np.repeat(np.arange(len(block)), length)
