"""Bound one unit's contribution, and carry the bound with the value so that noise is scaled from a fact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

MARGIN = 1e-6  # contributions are clipped to bound (1 - MARGIN); covers float64 rounding of norms and sums (decision 8)
HEADROOM = 50  # bits for |sum| / grid; float64 holds integers exactly up to 2^53
FINE = 2.0**10  # the noise must be at least this many grid units (decision 7)


@dataclass(frozen=True)
class Bounded:
    """A sum in which adding or removing one unit moves the value by at most `sensitivity` in L2 norm."""

    value: torch.Tensor
    sensitivity: float


def clip(v: torch.Tensor, bound: float) -> torch.Tensor:
    """Scale rows of v [n, d] to norm at most bound (1 - MARGIN), in float64; a row with NaN or infinity becomes 0."""
    v = v.to(torch.float64)
    finite = torch.isfinite(v).all(1, keepdim=True)
    if not bool(finite.all()):
        v = torch.where(finite, v, torch.zeros((), dtype=v.dtype))
    # Divide by the largest entry first: squares of huge finite values would overflow and the row would wrongly vanish.
    top = v.abs().amax(1, keepdim=True).clamp_min(1e-300) if v.shape[1] else v.new_ones(len(v), 1)
    norm = top * (v / top).norm(dim=1, keepdim=True) if bool((top > 1e100).any()) else v.norm(dim=1, keepdim=True)
    return v * (bound * (1 - MARGIN) / norm.clamp_min(bound * (1 - MARGIN)))


def grid(bound: float, noise: float, units: int) -> float:
    """The spacing on which one-shot sums are exact: a power of two made from public facts only.

    Args:
        bound: L2 bound of one unit.
        noise: noise standard deviation (0 for epsilon = infinity).
        units: declared number of units.

    Raises:
        OverflowError: so many units, or so little noise, that no grid is both exact and fine.
    """
    step = 2.0 ** (math.ceil(math.log2(units * bound)) - HEADROOM)
    if noise and noise / step < FINE:
        raise OverflowError(f"noise {noise:g} is under {FINE:g} grid units of {step:g}; ask for a smaller epsilon")
    return step


class ExactSum:
    """Sums of bounded rows that no order, chunking or number of processes can change by a bit.

    Rows are truncated toward zero onto an integer grid, so their norm cannot grow; sums of integers below 2^53 are
    exact in float64.

    Args:
        rows: how many sums are kept apart (one a class, or one).
        size: length of a contribution.
        bound: L2 bound of one unit.
        step: grid spacing.
    """

    def __init__(self, rows: int, size: int, bound: float, step: float):
        self._sum = torch.zeros(rows, size, dtype=torch.float64)
        self._bound, self._step = bound, step

    def add(self, v: torch.Tensor, weight: torch.Tensor, row: torch.Tensor) -> None:
        """Add contributions v [n, size], clipped to bound and times weight [n] in (0, 1], to the sums of row [n]."""
        whole = clip(v, self._bound).mul_(weight[:, None] / self._step).trunc_()
        if len(self._sum) == 1:
            self._sum[0] += whole.sum(0)
        else:
            self._sum += torch.nn.functional.one_hot(row, len(self._sum)).to(torch.float64).T @ whole

    def total(self) -> Bounded:
        """The integer sums, in units of the grid."""
        return Bounded(self._sum, self._bound / self._step)
