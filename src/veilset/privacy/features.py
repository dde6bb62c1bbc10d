"""A public map of each record alone, put in front of what the gate is asked, and computed once per record."""

from __future__ import annotations

from collections.abc import Callable

import torch

from veilset.privacy.alone import alone

Map = Callable[[torch.Tensor], torch.Tensor]
BATCH = 32  # records always mapped at a time, unless the map says `rows`: products round by how many there are
MOST = 4 << 30  # bytes kept; features of larger sets are computed whenever they are asked for


class Features:
    """What a map made of the private records. Lives in the gate only, in memory, until the gate is closed.

    Args:
        f: one image [C, H, W] float32 in [0, 1] -> a tensor of fixed shape; it is kept in the type that f gives. It is
            run under `torch.func.vmap`, so it cannot see another record.
        records: how many there are.
        blank: an image of the set's shape.
        batch: how many are mapped together, always.
    """

    def __init__(self, f: Map, records: int, blank: torch.Tensor, batch: int = BATCH):
        self._map, self._batch = torch.func.vmap(f), batch
        like = f(blank)
        self.blank = like.float()
        keep = records * like.numel() * like.element_size() <= MOST
        self._kept = torch.empty(records, *like.shape, dtype=like.dtype) if keep else None
        self._known = torch.zeros(records, dtype=torch.bool)

    def __call__(self, records: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Features float32 [m, ...] of images x [m, C, H, W], of which the first n are the records of number [n]."""
        out = torch.zeros(len(x), *self.blank.shape)
        if self._kept is None:
            out[: len(records)] = self._mapped(x[: len(records)])
            return out.to(x.device)
        new = (~self._known[records]).nonzero()[:, 0]
        if len(new):
            self._kept[records[new]] = self._mapped(x[new.to(x.device)])
            self._known[records[new]] = True
        out[: len(records)] = self._kept[records]
        return out.to(x.device)

    def _mapped(self, x: torch.Tensor) -> torch.Tensor:
        """The map's values for images x [k, C, H, W]."""
        padded = torch.cat([x, x.new_zeros(-len(x) % self._batch, *x.shape[1:])])
        batches = [alone(lambda v: [self._map(v)], 0, batch)[0].cpu() for batch in padded.split(self._batch)]
        return torch.cat(batches)[: len(x)]
