"""What the layers hand over about n records, and the clipped sum that is formed from it.

A parameter's per-record gradient is kept in one of three forms, whichever is cheaper for its shape:
  explicit  the gradients themselves, [n, P];
  outer     a [n, i] and g [n, o] whose outer product it is (a linear layer that is used at one position);
  gram      a [n, L, i] and g [n, L, o] whose outer products are summed over L positions. The squared norm is
            sum_lm (a_l . a_m)(g_l . g_m), from two L x L matrices.
What is summed for a record has norm at most C (decision 8 of the design): explicit gradients are rounded before their
norm is taken, not after; for the gram form, whose terms may cancel, the possible rounding error (in proportion to
sum_l |a_l| |g_l|) is added to the norm; the sum's own rounding is covered by MARGIN.
"""

from __future__ import annotations

import math

import torch

ROWS = 256  # records at a time, at most
# Rounding of float32 norms and sums. Summing ROWS rows is off by about 1e-6 C; tests look for inputs that do worse.
MARGIN = 1e-3
SLACK = 1e-5  # of (sum_l |a_l| |g_l|)^2: rounding of a gram form, with room


class Sheet:
    """Per-record gradients of one chunk.

    Args:
        n: records, padding included.
        shapes: the parameters, in order.
        several: keep everything explicit, because gradients of a unit's images are averaged before clipping.
    """

    def __init__(self, n: int, shapes: dict[str, torch.Size], several: bool = False):
        self.n, self.shapes, self.several = n, shapes, several
        self.explicit: dict[str, torch.Tensor] = {}
        self.factored: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, name: str, grads: torch.Tensor) -> None:
        """Add explicit gradients [n, ...] of a parameter."""
        if name in self.factored:
            self._unfold(name)
        flat = grads.reshape(self.n, -1)
        if name in self.explicit:
            flat = self.explicit[name].float() + flat.float()
        self.explicit[name] = flat

    def product(self, name: str, a: torch.Tensor, g: torch.Tensor) -> None:
        """Add gradients [n, o, i] = sum over positions of g_l (outer) a_l, for a [n, L, i] and g [n, L, o]."""
        length, i, o = a.shape[1], a.shape[2], g.shape[2]
        cheap = length == 1 or length * (i + o) < i * o
        if cheap and not self.several and name not in self.explicit and name not in self.factored:
            self.factored[name] = (a, g)
        else:
            self.add(name, torch.bmm(g.transpose(1, 2), a))

    def _unfold(self, name: str) -> None:
        a, g = self.factored.pop(name)
        self.explicit[name] = torch.bmm(g.transpose(1, 2), a).reshape(self.n, -1)

    def rows(self) -> torch.Tensor:
        """All gradients explicitly, [n, size] in the order of the parameters."""
        for name in list(self.factored):
            self._unfold(name)
        kind = torch.float64 if any(v.dtype == torch.float64 for v in self.explicit.values()) else torch.float32
        parts = [
            self.explicit[k].to(kind) if k in self.explicit else torch.zeros(self.n, math.prod(s), dtype=kind)
            for k, s in self.shapes.items()
        ]
        return torch.cat([p.cpu() for p in parts], 1)

    def clipped(self, used: int, bound: float) -> torch.Tensor:
        """Sum over the first `used` records of their gradients, each scaled to norm at most bound (1 - MARGIN).

        Returns:
            float64 [size].
        """
        for name, g in self.explicit.items():
            self.explicit[name] = g[:used]
        for name, (a, g) in self.factored.items():
            self.factored[name] = (a[:used].float(), g[:used].float())
        norm = self._norms(used)
        bad = ~torch.isfinite(norm)
        if bool(bad.any()):  # a record with NaN, infinity or an overflow contributes nothing
            norm = norm.masked_fill(bad, 1.0)
            for held in [*self.explicit.values(), *(t for pair in self.factored.values() for t in pair)]:
                held[bad] = 0
        most = bound * (1 - MARGIN)
        share = most / norm.clamp_min(most)
        parts = [self._weighted(name, share) for name in self.shapes]
        return torch.cat([p.to("cpu", torch.float64).flatten() for p in parts])

    def _norms(self, used: int) -> torch.Tensor:
        """[used] an upper bound on the norm of each record's gradient as it will be summed, tight to about 1e-6."""
        square = torch.zeros(used)
        for g in self.explicit.values():
            kind = torch.float64 if g.dtype == torch.float64 else torch.float32
            square = square + torch.linalg.vector_norm(g, dim=1, dtype=kind).square().cpu()
        slack = torch.zeros(used)
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
        """Sum over records of share x gradient of one parameter, float32 or float64."""
        if name in self.explicit:
            g = self.explicit[name]
            kind = torch.float64 if g.dtype == torch.float64 else torch.float32
            return share.to(g.device, kind) @ g.to(kind)
        if name in self.factored:
            a, g = self.factored[name]
            scaled = g * share.to(g.device)[:, None, None]
            return scaled.flatten(0, 1).T @ a.flatten(0, 1)
        return torch.zeros(self.shapes[name])
