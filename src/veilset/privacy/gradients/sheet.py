"""What the layers hand over about n records, and the clipped sum that is formed from it.

A parameter's per-record gradient is kept in one of three forms, whichever is cheaper for its shape:
  explicit  the gradients themselves, in pieces [n, ...];
  outer     a [n, 1, i] and g [n, 1, o] whose outer product it is (a linear layer that is used at one position);
  gram      a [n, L, i] and g [n, L, o] whose outer products are summed over L positions. The squared norm is
            sum_lm (a_l . a_m)(g_l . g_m), from two L x L matrices.
What is summed for a record has norm at most C (decision 8 of the design): explicit gradients are rounded before their
norm is taken, not after; for the gram form, whose terms may cancel, the possible rounding error (in proportion to
sum_l |a_l| |g_l|) is added to the norm; the sum's own rounding is covered by MARGIN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

ROWS = 256  # records at a time, at most
# Rounding of float32 norms and sums. Summing ROWS rows is off by about 1e-6 C; tests look for inputs that do worse.
MARGIN = 1e-3
SLACK = 1e-5  # of (sum_l |a_l| |g_l|)^2: rounding of a gram form, with room

Join = Callable[[Sequence[torch.Tensor]], torch.Tensor]


def whole(pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """The only piece, which lies in memory as its parameter does."""
    return pieces[0]


class Sheet:
    """Per-record gradients of one chunk.

    Args:
        n: records, padding included.
        shapes: the parameters, in order.
        several: keep everything explicit, because gradients of a unit's images are averaged before clipping.
    """

    def __init__(self, n: int, shapes: dict[str, torch.Size], several: bool = False):
        self.n, self.shapes, self.several = n, shapes, several
        self.explicit: dict[str, tuple[list[torch.Tensor], Join]] = {}
        self.factored: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, name: str, grads: torch.Tensor | list[torch.Tensor], join: Join = whole) -> None:
        """Add explicit gradients of a parameter.

        Args:
            name: the parameter.
            grads: [n, ...], or pieces of that kind in the order in which they are cheapest to make.
            join: makes [..., *shape] (up to reshaping) of the pieces, for any leading axes.
        """
        pieces = [_wide(p) for p in (grads if isinstance(grads, list) else [grads])]
        if name in self.factored:
            a, g = self.factored.pop(name)
            self.explicit[name] = [_wide(torch.bmm(g.transpose(1, 2), a))], whole
        if name in self.explicit:  # a second use of the same parameter
            pieces, join = [self._flat(name) + join(pieces).reshape(self.n, -1)], whole
        self.explicit[name] = pieces, join

    def product(self, name: str, a: torch.Tensor, g: torch.Tensor) -> None:
        """Add gradients [n, o, i] = sum over positions of g_l (outer) a_l, for a [n, L, i] and g [n, L, o]."""
        length, i, o = a.shape[1], a.shape[2], g.shape[2]
        cheap = length == 1 or length * (i + o) < i * o
        if cheap and not self.several and name not in self.explicit and name not in self.factored:
            self.factored[name] = (a, g)
        else:
            self.add(name, torch.bmm(g.transpose(1, 2), a))

    def rows(self) -> torch.Tensor:
        """All gradients explicitly, [n, size] in the order of the parameters."""
        for name in list(self.factored):
            a, g = self.factored.pop(name)
            self.add(name, torch.bmm(g.transpose(1, 2), a))
        parts = [
            self._flat(k) if k in self.explicit else torch.zeros(self.n, math.prod(s)) for k, s in self.shapes.items()
        ]
        kind = torch.float64 if any(p.dtype == torch.float64 for p in parts) else torch.float32
        return torch.cat([p.to("cpu", kind) for p in parts], 1)

    def add_clipped(self, total: torch.Tensor, used: int, bound: float) -> None:
        """Add to `total` (float64 [size]) the sum over the first `used` records of their gradients, each scaled to norm
        at most bound (1 - MARGIN). A record with NaN, infinity or an overflow contributes nothing.
        """
        for name, (pieces, join) in self.explicit.items():
            self.explicit[name] = [p[:used] for p in pieces], join
        for name, (a, g) in self.factored.items():
            self.factored[name] = (_wide(a[:used]), _wide(g[:used]))
        norm = self._norms(used)
        bad = ~torch.isfinite(norm)
        if bool(bad.any()):
            norm = norm.masked_fill(bad, 1.0)
            self.explicit = {k: ([_emptied(p, bad) for p in pieces], j) for k, (pieces, j) in self.explicit.items()}
            self.factored = {k: (_emptied(a, bad), _emptied(g, bad)) for k, (a, g) in self.factored.items()}
        most = bound * (1 - MARGIN)
        share = most / norm.clamp_min(most)
        place = 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            if name in self.explicit or name in self.factored:
                total[place : place + size] += self._weighted(name, share).cpu().reshape(-1)
            place += size

    def _flat(self, name: str) -> torch.Tensor:
        """[n, P] explicit gradients in the parameter's own order."""
        pieces, join = self.explicit[name]
        shape = self.shapes[name]
        return join(pieces).reshape(self.n, math.prod(shape))

    def _norms(self, used: int) -> torch.Tensor:
        """[used] an upper bound on the norm of each record's gradient as it will be summed, tight to about 1e-5."""
        square, slack = torch.zeros(used), torch.zeros(used)
        for pieces, _ in self.explicit.values():
            for p in pieces:
                square = square + torch.linalg.vector_norm(p.reshape(used, -1), dim=1).square().cpu()
        for a, g in self.factored.values():
            long, wide = torch.linalg.vector_norm(a, dim=2), torch.linalg.vector_norm(g, dim=2)
            if a.shape[1] == 1:
                square = square + (long * wide).square().squeeze(1).cpu()
                continue
            gram = torch.bmm(a, a.transpose(1, 2)).mul_(torch.bmm(g, g.transpose(1, 2))).sum((1, 2))
            most = (long * wide).sum(1)
            square = square + (gram.clamp_min(0) + SLACK * most.square()).cpu()
            slack = slack + (SLACK * most).cpu()
        return square.sqrt() + slack

    def _weighted(self, name: str, share: torch.Tensor) -> torch.Tensor:
        """Sum over records of share x gradient of one parameter."""
        if name in self.explicit:
            pieces, join = self.explicit[name]
            return join([(share.to(p) @ p.reshape(len(p), -1)).view(p.shape[1:]) for p in pieces])
        a, g = self.factored[name]
        return _product((g * share.to(g)[:, None, None]).flatten(0, 1), a.flatten(0, 1))


def _product(g: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """g' a for g [m, o] and a [m, i], by oneDNN where torch offers it: on some CPUs twice as fast as the BLAS."""
    if g.device.type == "cpu" and g.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        if linear is not None:
            out: torch.Tensor = linear(g.T.contiguous(), a.T.contiguous(), None, "none", [], "")
            return out
    return g.T @ a


def _emptied(v: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
    """v [n, ...] with the marked rows 0."""
    return v.masked_fill(bad.to(v.device).view(-1, *[1] * (v.dim() - 1)), 0)


def _wide(v: torch.Tensor) -> torch.Tensor:
    """float32, or float64 if it is that already."""
    return v if v.dtype in (torch.float32, torch.float64) else v.float()
