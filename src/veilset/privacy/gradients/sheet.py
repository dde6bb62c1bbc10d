"""What the layers hand over about n records, and the clipped sum that is formed from it.

A parameter's per-record gradient is kept in one of three forms, whichever is cheaper for its shape:
  explicit  the gradients themselves, in pieces [n, ...];
  outer     a [n, 1, i] and g [n, 1, o] whose outer product it is (a linear layer that is used at one position);
  gram      a [n, L, i] and g [n, L, o] whose outer products are summed over L positions. The squared norm is
            sum_lm (a_l . a_m)(g_l . g_m), from two L x L matrices.
What is summed for a record has norm at most C (decision 8 of the design; docs/proof.md has the proof). Its terms are
the numbers above, each a float32, and are multiplied by its share and added up in float64. Its norm is taken of the
same numbers in float32, by sums of at most SPAN terms; what such a sum may be off by is in MARGIN or, for the gram
form, whose terms may cancel, added to the norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from veilset.privacy.gradients import kernels

ROWS = 320  # records at a time, at most
# Of C: rounding of norms (SPAN / 2 x 2^-24 = 1.3e-4 and a little), and of all float64 sums and the grid (below 1e-4).
MARGIN = 1e-3
SPAN = 4096  # terms that are added up in float32
UNIT = 2.0**-24  # of float32
SLACK = 1e-4  # least share of (sum_l |a_l| |g_l|)^2 in a gram form's squared norm: what may cancel stays below 100 C
BLOCK = 1 << 16  # numbers that are made float64 at a time, so that they stay in the cache

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
        self.squares: dict[str, torch.Tensor] = {}

    def add(
        self,
        name: str,
        grads: torch.Tensor | list[torch.Tensor],
        join: Join = whole,
        squares: torch.Tensor | None = None,
    ) -> None:
        """Add explicit gradients of a parameter.

        Args:
            name: the parameter.
            grads: [n, ...], or pieces of that kind in the order in which they are cheapest to make.
            join: makes [..., *shape] (up to reshaping) of the pieces, for any leading axes.
            squares: float64 [n], the squares of the gradients' norms, if whoever made them knows these.
        """
        pieces = [_wide(p) for p in (grads if isinstance(grads, list) else [grads])]
        if name in self.factored:
            a, g = self.factored.pop(name)
            self.explicit[name] = [_wide(torch.bmm(g.transpose(1, 2), a))], whole
        if name in self.explicit:  # a second use of the same parameter
            pieces, join, squares = [self._flat(name) + join(pieces).reshape(self.n, -1)], whole, None
        self.explicit[name] = pieces, join
        self.squares.pop(name, None)
        if squares is not None:
            self.squares[name] = squares

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
        none = {k: torch.zeros(self.n, math.prod(s)) for k, s in self.shapes.items() if k not in self.explicit}
        parts = [none[k] if k in none else self._flat(k) for k in self.shapes]
        kind = torch.float64 if any(p.dtype == torch.float64 for p in parts) else torch.float32
        return torch.cat([p.to("cpu", kind) for p in parts], 1)

    def part(self, name: str, some: torch.Tensor) -> torch.Tensor:
        """[k, P] gradients of one parameter of the k records `some`, on the processor."""
        if name in self.explicit:
            pieces, join = self.explicit[name]
            return join([p[some] for p in pieces]).reshape(len(some), -1).cpu()
        if name in self.factored:
            a, g = (_wide(v[some]) for v in self.factored[name])
            return torch.bmm(g.transpose(1, 2), a).flatten(1).cpu()
        return torch.zeros(len(some), math.prod(self.shapes[name]))

    def pieces(self) -> list[torch.Tensor]:
        """All that is kept of the records, [n, ...] each, and their norms."""
        explicit = [p for pieces, _ in self.explicit.values() for p in pieces]
        return [*explicit, *(v for pair in self.factored.values() for v in pair), self.norms()]

    def add_clipped(self, total: torch.Tensor, used: torch.Tensor, bound: float) -> torch.Tensor:
        """Add to `total` (float64 [size]) the sum over the `used` records (bool [n]) of their gradients, each scaled to
        norm at most bound (1 - MARGIN).

        Returns:
            Those of the used records with NaN, infinity or an overflow: they contribute nothing.
        """
        norm = self.norms()
        bad = ~torch.isfinite(norm)
        if bool(bad.any()):
            norm = norm.masked_fill(bad, 1.0)
            self.explicit = {k: ([_emptied(p, bad) for p in pieces], j) for k, (pieces, j) in self.explicit.items()}
            self.factored = {k: (_emptied(a, bad), _emptied(g, bad)) for k, (a, g) in self.factored.items()}
        share = shares(norm, bound)
        share[~used] = 0
        place = 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            if name in self.explicit or name in self.factored:
                total[place : place + size] += self._weighted(name, share).cpu().reshape(-1)
            place += size
        return (bad & used).nonzero()[:, 0]

    def _flat(self, name: str) -> torch.Tensor:
        """[n, P] explicit gradients in the parameter's own order."""
        pieces, join = self.explicit[name]
        shape = self.shapes[name]
        return join(pieces).reshape(self.n, math.prod(shape))

    def norms(self) -> torch.Tensor:
        """[n] an upper bound on the norm of each record's gradient, up to MARGIN / 2; float64."""
        square = torch.zeros(self.n, dtype=torch.float64)
        for name, (pieces, _) in self.explicit.items():
            known = [self.squares[name]] if name in self.squares else []
            for v in known or (squares(p.reshape(self.n, -1)) for p in pieces):
                square += v.cpu()
        for a, g in self.factored.values():
            a, g = _wide(a), _wide(g)
            long, wide = squares(a).sqrt(), squares(g).sqrt()
            if a.shape[1] == 1:
                square += (long * wide).square().squeeze(1).cpu()
                continue
            gram = torch.bmm(a, a.transpose(1, 2)).double() * torch.bmm(g, g.transpose(1, 2)).double()
            slack = max(SLACK, 1.1 * UNIT * (a.shape[2] + g.shape[2]))  # entries are float32 sums of so many terms
            square += (gram.sum((1, 2)).clamp_min(0) + slack * (long * wide).sum(1).square()).cpu()
        return square.sqrt()

    def _weighted(self, name: str, share: torch.Tensor) -> torch.Tensor:
        """Sum over records of share x gradient of one parameter, float64."""
        if name in self.explicit:
            pieces, join = self.explicit[name]
            return join([_mixed(share.to(p.device), p.reshape(self.n, -1)).view(p.shape[1:]) for p in pieces])
        a, g = self.factored[name]
        total = torch.zeros(g.shape[2], a.shape[2], dtype=torch.float64, device=a.device)
        few = max(1, BLOCK // (a.shape[1] * (a.shape[2] + g.shape[2])))
        for s, p, q in zip(share.to(a.device).split(few), a.split(few), g.split(few), strict=True):
            total.addmm_(q.double().mul_(s[:, None, None]).flatten(0, 1).T, p.double().flatten(0, 1))
        return total


def shares(norm: torch.Tensor, bound: float) -> torch.Tensor:
    """What gradients of these norms are multiplied by, so that none is longer than bound (1 - MARGIN)."""
    most = bound * (1 - MARGIN)
    return most / norm.clamp_min(most)


def squares(v: torch.Tensor) -> torch.Tensor:
    """v [..., d] float32 -> sums of squares over d, float64; no more than SPAN terms are added up in float32."""
    if v.dtype == torch.float64 or v.shape[-1] <= SPAN:
        return torch.linalg.vector_norm(v, dim=-1).double().square()
    whole = v.shape[-1] // SPAN * SPAN
    head = torch.linalg.vector_norm(v[..., :whole].unflatten(-1, (-1, SPAN)), dim=-1).double().square().sum(-1)
    return head + torch.linalg.vector_norm(v[..., whole:], dim=-1).double().square()


def _mixed(share: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """share [n] @ rows [n, d] in float64, a few columns at a time."""
    if rows.dtype == torch.float32 and kernels.can(rows):
        return kernels.mix(share, rows)
    return torch.cat([share @ part.double() for part in rows.split(max(1, BLOCK // len(rows)), 1)])


def _emptied(v: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
    """v [n, ...] with the marked rows 0."""
    return v.masked_fill(bad.to(v.device).view(-1, *[1] * (v.dim() - 1)), 0)


def _wide(v: torch.Tensor) -> torch.Tensor:
    """float32, or float64 if it is that already."""
    return v if v.dtype in (torch.float32, torch.float64) else v.float()
