"""Private records, as the gate's verbs get them: chunks of a fixed number of rows, the last filled up with blanks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from veilset.core.types import PublicInfo
from veilset.privacy.alone import EVEN, steady_rows
from veilset.privacy.features import BATCH, Features, Map
from veilset.privacy.private import Opened
from veilset.privacy.sampling import Units

Array = np.ndarray[Any, Any]
MANY = 4096  # rows at a time, at most
CALL = 16  # rows whose arithmetic takes as long as what each chunk costs beside it, about


@dataclass(frozen=True)
class Chunk:
    """Records, and what is known of their units.

    Attributes:
        x: [rows, C, H, W] float32 in [0, 1], or the features of the images; blank from n on.
        y: [rows] labels; 0 from n on.
        unit: [n] which of the chosen units each record belongs to; ascending.
        images: [n] how many images that unit has, in this and other chunks.
    """

    x: torch.Tensor
    y: torch.Tensor
    unit: torch.Tensor
    images: torch.Tensor


class Reader:
    """Reads the records of chosen units.

    Args:
        opened: the records.
        info: declared facts.
        device: where chunks are put.
    """

    def __init__(self, opened: Opened, info: PublicInfo, device: str):
        self.info, self._device = info, torch.device(device)
        self._records, self._labels, self._ids = opened.records, opened.labels, opened.units
        self.units = Units(opened, info.max_images_per_unit)
        self._features: dict[Map, Features] = {}

    def blank(self, features: Map | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """A blank image (or its features) and label 0: the shape of an answer must not come from a record."""
        image = torch.zeros(self.info.shape, device=self._device)
        if features is not None and features not in self._features:
            mapped = torch.func.vmap(features)
            like = image, torch.zeros((), dtype=torch.int64)
            batch = steady_rows("features", lambda x, y: [mapped(x)], like, 1, getattr(features, "rows", BATCH))
            self._features[features] = Features(features, self._records.count, image, batch)
        seen = image if features is None else self._features[features].blank
        return seen, torch.zeros((), dtype=torch.int64, device=self._device)

    def chunks(self, chosen: Array, rows: int, features: Map | None = None) -> Iterator[Chunk]:
        """All records of chosen units, so many at a time. With `features`, `blank` was asked about them before."""
        low, high = self.info.value_range
        buffer = np.empty((rows, *self.info.shape), self._records.dtype)
        for records, unit, images in self.units.chunks(chosen, rows):
            n, raw = len(records), buffer[: len(records)]
            order = np.argsort(records, kind="stable")
            self._records.read(records[order], raw)
            x = torch.zeros(rows, *self.info.shape)
            x[torch.from_numpy(order)] = torch.from_numpy(raw).to(torch.float32).sub_(low).div_(high - low).clamp_(0, 1)
            y = torch.zeros(rows, dtype=torch.int64)
            y[:n] = torch.from_numpy(self._labels[records].astype(np.int64))
            x = x.to(self._device)
            if features is not None:
                x = self._features[features](torch.from_numpy(records), x)
            yield Chunk(x, y.to(self._device), torch.from_numpy(unit), torch.from_numpy(images))

    def rows(self, units: float, rate: float, most: int) -> int:
        """Rows of a chunk; declared facts alone decide, not how many units there are, or were drawn.

        Args:
            units: that may be drawn.
            rate: at which they are.
            most: as memory allows.
        """
        # How many images a unit has is not declared, only how many are used at most.
        return chunk_rows(units * rate * math.sqrt(self.info.max_images_per_unit), rate, most)

    def bytes(self) -> Iterator[bytes]:
        """All records, labels and unit ids, for the HMAC that tells whether a resumed run has the same data."""
        everyone = np.arange(len(self._labels))
        raw = np.empty((MANY, *self.info.shape), self._records.dtype)
        for i in range(0, len(everyone), len(raw)):
            block = everyone[i : i + len(raw)]
            self._records.read(block, raw[: len(block)])
            yield raw[: len(block)].tobytes() + self._labels[block].astype(np.int64).tobytes()
            if self._ids is not None:
                yield self._ids[block].astype(np.int64).tobytes()


def chunk_rows(mean: float, rate: float, most: int) -> int:
    """Rows of a chunk, at most `most`: those that cost least for a Poisson sample, blanks and calls counted.

    Args:
        mean: of the number of records.
        rate: of sampling; 1 takes all of them.
        most: as memory allows.
    """
    deviation = math.sqrt(mean * (1 - rate))
    even = EVEN * min(2, torch.get_num_threads())

    def above(rows: int) -> float:
        return 0.5 * math.erfc((rows - mean) / deviation / math.sqrt(2)) if deviation else float(rows < mean)

    def cost(rows: int) -> float:
        chunks = math.ceil((mean + 6 * deviation) / rows)
        return sum(above(k * rows) for k in range(chunks)) * (rows + CALL)

    return min(range(even, most + 1, even), key=cost, default=most)
