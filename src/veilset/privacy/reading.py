"""Private records, as the gate's verbs get them: chunks of a fixed number of rows, the last one filled up with blanks.

What a record is mapped to must depend neither on the records beside it nor on its row, or one more unit in front would
change what all others contribute. Each record is mapped alone (under vmap), but libraries round matrix products by how
many rows there are, and may round by which row it is. So the number of rows is fixed for a release from declared facts,
and `steady_rows` looks, on random images, whether on this machine the rows are alone to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.privacy.draws import shared
from veilset.privacy.features import BATCH, Features, Map
from veilset.privacy.private import Opened
from veilset.privacy.sampling import Units

Array = np.ndarray[Any, Any]
Look = Callable[..., Sequence[torch.Tensor]]
MANY = 4096  # rows at a time, at most
EVEN = 8  # the number of rows is a multiple of it: vectors of the processor are then filled alike


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
            batch = steady_rows("features", lambda x, y: [mapped(x)], like, 1, BATCH)
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

    def rows(self, expected: float, most: int) -> int:
        """Rows of a chunk, at most `most`, for about so many units: few chunks, and few blanks in the last one.

        Declared facts alone decide; how many units there are does not.
        """
        likely = expected * math.sqrt(self.info.max_images_per_unit)
        likely += 2 * math.sqrt(likely)  # of a Poisson batch
        even = max(1, most // EVEN * EVEN or most)
        a_chunk = likely / max(1, math.ceil(likely / even))
        return min(even, EVEN * math.ceil(a_chunk / EVEN))

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


def steady_rows(what: str, look: Look, like: Sequence[torch.Tensor], classes: int, rows: int) -> int:
    """The largest number of rows, `rows` or that halved again and again, at which rows are alone to the last bit.

    Random images are looked at once more, in another order and with other neighbours. Devices other than the processor,
    whose libraries promise no order of additions, are not looked at: see the threat model.

    Args:
        what: the release, for messages.
        look: inputs, [n, ...] each -> what each of the n records gives, [n, ...] each.
        like: one record's inputs; the second is its label.
        classes: labels are drawn below it.
        rows: to begin with.

    Raises:
        ConfigError: one record gives other values when it is asked again.
    """
    if like[0].device.type != "cpu":
        return rows
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        many = [torch.rand(rows, *v.shape).to(v.dtype) for v in like]
        many[1] = torch.randint(classes, (rows,))

        def seen(order: torch.Tensor, others: int = 0) -> list[torch.Tensor]:
            inputs = [v[order] for v in many]
            if others:  # every third record is another one
                inputs = [v.clone() for v in inputs]
                inputs[0][::3] = torch.rand(inputs[0][::3].shape) * others
            with shared(0, like[0].device):
                return list(look(*inputs))

        once, again = (seen(torch.arange(min(2, rows))) for _ in range(2))
        if not all(_same(a, b) for a, b in zip(once, again, strict=True)):
            raise ConfigError(
                f"release {what!r}: asked twice about one record, the loss or map gives two answers; it keeps a state "
                "or a generator of its own. Declare what it draws: gate.grad(..., draws={'name': shape})"
            )
        while rows > 1:
            places = torch.arange(rows)
            order, kept = places.flip(0), places[places % 3 != 0]
            plain, other = seen(places), seen(order, others=100)
            if all(_same(a[order][kept], b[kept]) for a, b in zip(plain, other, strict=True)):
                break
            rows //= 2
            many = [v[:rows] for v in many]
    return rows


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
