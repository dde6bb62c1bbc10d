"""What the gate calls: the clipped sum of a loss and network, by the fast path or, failing that, the reference."""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn

from veilset.core.errors import ConfigError, VeilsetError
from veilset.core.memory import keep_pages
from veilset.privacy.bounding import clip
from veilset.privacy.gradients.reference import Loss, Parameters, named, per_record, refuse_mixing
from veilset.privacy.gradients.sheet import ROWS, Sheet
from veilset.privacy.gradients.taps import tapped

PROBE = 3  # random public images on which the fast path must equal the reference
FEW = 64
TOLERANCE = 1e-3  # of the gradient's norm; a wrong rule is wrong by far more


class Clipped:
    """How the clipped sum is computed, decided once on random public images before any record is read.

    Args:
        loss: (params, one image, its label) -> scalar.
        params: module or mapping.
        blank: an image and a label of the set's shape and type.

    Raises:
        ConfigError: a layer mixes records, or a buffer changes.
    """

    def __init__(self, loss: Loss, params: Parameters, blank: tuple[torch.Tensor, torch.Tensor]):
        refuse_mixing(params)
        keep_pages()
        self._code, self._net = _code(loss), params if isinstance(params, nn.Module) else None
        self.shapes = {k: p.shape for k, p in named(params).items()}
        self.size = sum(math.prod(s) for s in self.shapes.values())
        self.memory = 16 * self.size  # bytes a record
        with torch.random.fork_rng(devices=[]), torch.autocast(blank[0].device.type, enabled=False):
            torch.default_generator.manual_seed(0)
            self.fast = self._probe(loss, params, *blank)

    def fits(self, loss: Loss, params: Parameters) -> bool:
        """Whether this was made for the same loss and network."""
        same = params is self._net if isinstance(params, nn.Module) else self._net is None
        return same and _code(loss) is self._code and {k: p.shape for k, p in named(params).items()} == self.shapes

    def _probe(self, loss: Loss, params: Parameters, x: torch.Tensor, y: torch.Tensor) -> bool:
        """Whether the fast path gives the reference's gradients on random images."""
        images, labels = torch.rand(PROBE, *x.shape, dtype=x.dtype).to(x.device), y.expand(PROBE)
        before = {k: v.clone() for k, v in params.named_buffers()} if isinstance(params, nn.Module) else {}
        torch.default_generator.manual_seed(1)
        try:
            wanted = per_record(loss, params, images, labels)
        except RuntimeError as e:
            if before and "mutate" in str(e):
                raise ConfigError(f"a buffer ({', '.join(before)}) changes when the loss is computed; one record would "
                                  "reach another: keep it constant") from e  # fmt: skip
            raise
        for k, v in before.items():
            if not torch.equal(v, params.get_buffer(k)):  # type: ignore[union-attr]
                raise ConfigError(
                    f"a buffer ({k}) changes when the loss is computed; one record would reach another: "
                    "keep it constant"
                )
        torch.default_generator.manual_seed(1)
        saved = [0]

        def count(t: torch.Tensor) -> torch.Tensor:
            saved[0] += t.numel() * t.element_size()
            return t

        try:
            with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
                got = tapped(loss, params, images, labels)
            held = _held(got)
            rows = got.rows()
        except VeilsetError:
            raise
        except Exception as e:  # any layer or transform may be unsupported in its own way; the reference is general
            return self._slow(f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no message'}")
        flat = torch.cat([wanted[k].reshape(PROBE, -1).to(rows) for k in self.shapes], 1)
        wrong = float((rows - flat).norm() / flat.norm().clamp_min(1e-30))
        if not wrong < TOLERANCE and bool(torch.isfinite(flat).all()):
            return self._slow(f"its gradients differ from the reference by {wrong:.1e}")
        self.memory = (3 * saved[0] + held) // PROBE + 1  # a layer's temporaries are some times what it saves
        return True

    @staticmethod
    def _slow(why: str) -> bool:
        warnings.warn(f"gradients are computed by the slower general path: {why}", stacklevel=2)
        return False

    def rows(self, memory: int) -> int:
        """Records at a time for about `memory` bytes of temporaries; up to four times that for FEW records, since fewer
        than those cost more in calls than in arithmetic.
        """
        return max(1, min(ROWS, max(memory // self.memory, min(FEW, 4 * memory // self.memory))))

    def add(
        self,
        total: torch.Tensor,
        loss: Loss,
        params: Parameters,
        x: torch.Tensor,
        y: torch.Tensor,
        unit: torch.Tensor,
        bound: float,
        seed: int,
        several: bool,
    ) -> None:
        """Add to `total` the sum over units of the clipped mean gradient of each unit's images.

        Args:
            total: float64 [size], changed in place.
            loss, params: as before.
            x: [m, C, H, W], of which the last m - n are padding. y: [m].
            unit: [n] which unit each record belongs to, numbered from 0.
            bound: max_grad_norm.
            seed: of the loss's own random draws.
            several: units may hold several images.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            if self.fast:
                sheet = tapped(loss, params, x, y, several)
            else:
                sheet = Sheet(len(x), self.shapes, several)
                for name, grads in per_record(loss, params, x, y).items():
                    sheet.add(name, grads)
        with torch.autocast(x.device.type, enabled=False):  # norms and sums stay float32
            self._finish(total, sheet, unit, bound, several)

    def _finish(self, total: torch.Tensor, sheet: Sheet, unit: torch.Tensor, bound: float, several: bool) -> None:
        if not several:
            sheet.add_clipped(total, len(unit), bound)
            return
        rows = sheet.rows()[: len(unit)].to(torch.float64)
        count = torch.bincount(unit)
        mean = torch.zeros(len(count), self.size, dtype=torch.float64).index_add_(0, unit, rows) / count[:, None]
        total += clip(mean, bound).sum(0)

    def split(self, flat: torch.Tensor, params: Parameters) -> dict[str, torch.Tensor]:
        """A flat sum as name -> tensor in the parameter's shape and type."""
        pieces = torch.split(flat, [math.prod(s) for s in self.shapes.values()])
        now = named(params)
        return {k: v.reshape(now[k].shape).to(now[k]) for k, v in zip(self.shapes, pieces, strict=True)}


def _code(loss: Loss) -> object:
    """What stays the same when a function is made anew in every step of a loop."""
    return getattr(loss, "__code__", type(loss))


def _held(sheet: Sheet) -> int:
    """Bytes of per-record gradients, with the temporaries of the layer that has the largest."""
    explicit = [sum(p.numel() * 4 for p in pieces) for pieces, _ in sheet.explicit.values()]
    factored = sum(4 * (a.numel() + g.numel()) for a, g in sheet.factored.values())
    return sum(explicit) + 4 * max(explicit, default=0) + factored
