"""Bound one unit's contribution, and carry the bound with the value so that noise is scaled from a fact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

MARGIN = 1e-6  # contributions are clipped to bound (1 - MARGIN); covers float64 rounding of norms and sums
HEADROOM = 53  # bits: float64 holds integers exactly up to 2^53
CROWD = 8  # times the declared N that a set may hold; above it sums would not be exact
TAIL = 64  # deviations of noise that the grid must hold


@dataclass(frozen=True)
class Bounded:
    """A sum in which adding or removing one unit moves the value by at most `sensitivity` in L2 norm."""

    value: torch.Tensor
    sensitivity: float


def clip(v: torch.Tensor, bound: float, weight: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Scale rows of v [n, d] to norm at most bound (1 - MARGIN) times weight [n, 1], in float64; NaN gives 0.

    One multiplication a value: this is the inner loop of every release.
    """
    v = v.to(torch.float64, copy=True)
    most = bound * (1 - MARGIN)
    norm = v.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(norm).all()):
        # A row with NaN or infinity is emptied; a finite one whose squares overflow keeps its direction.
        finite = torch.isfinite(v).all(1, keepdim=True)
        v = torch.where(finite, v / (v.abs().amax(1, keepdim=True) / 1e100).clamp_min(1.0), 0.0)
        norm = v.norm(dim=1, keepdim=True)
    return v.mul_(most * weight / norm.clamp_min(most))


def grid(bound: float, noise: float, units: int) -> float:
    """The spacing on which sums and noise lie: a power of two made from public facts only.

    It is the smallest for which the largest sum, CROWD x units x bound, and TAIL deviations of noise stay below 2^53
    spacings, so that all of them are exact in float64.

    Args:
        bound: L2 bound of one unit.
        noise: noise standard deviation (0 for epsilon = infinity).
        units: declared number of units.
    """
    return math.ldexp(1.0, math.frexp(max(CROWD * units * bound, TAIL * noise))[1] - HEADROOM)


class ExactSum:
    """Sums of bounded rows that no order, chunking or number of processes can change by a bit.

    Rows are truncated toward zero onto an integer grid, so their norm cannot grow; sums of integers below 2^53 are
    exact in float64.

    Args:
        rows: how many sums are kept apart (one per class, or one).
        size: length of a contribution.
        bound: L2 bound of one unit.
        step: grid spacing.
    """

    def __init__(self, rows: int, size: int, bound: float, step: float):
        self._sum = torch.zeros(rows, size, dtype=torch.float64)
        self._bound, self._step = bound, step

    def add(self, v: torch.Tensor, weight: torch.Tensor, row: torch.Tensor) -> None:
        """Add contributions v [n, size], clipped to bound and times weight [n] in (0, 1], to the sums of row [n]."""
        whole = clip(v, self._bound, weight[:, None] / self._step)
        np.trunc(whole.numpy(), out=whole.numpy())  # six times as fast as torch's
        self._sum.index_add_(0, row, whole)

    def total(self) -> Bounded:
        """The integer sums, in units of the grid."""
        return Bounded(self._sum, self._bound / self._step)
