"""epsilon of sampled releases by privacy-loss distributions (PLD) on a grid, with a bound on what the arithmetic adds.

dp-accounting's pessimistic PLD can only err upwards in exact arithmetic: losses are rounded up ("connect the dots"),
and what is cut off counts as an infinite loss. Two kinds of error are left; `Grid.error` bounds them, as mass of delta.

*Tails.* A step loses 0.5 exp(-50) on a side, which is nothing; each self-composition and each composition of kinds cuts
off 1e-15 and adds it to the infinite loss (TAIL). From delta = 1e-15 on no epsilon would be finite.

*Rounding*, with u = 2^-53, which can err downwards. For a kind of release with n grid points, T steps, losses up to R:

- Each delta of one step, on which the grid is strung, is a difference of two probabilities with relative errors of at
  most 4 u (2 R + 8), or what a mechanism says instead (`ulps`). A curve of T steps averages curves of one step, so
  these errors add up: T u (8 R + 32).
- Its second differences are rounded by 4 u relative; divided by the spacing h that is T 4 u / h, relative to delta.
- A Fourier transform adds up every frequency in log2 n levels, each a rounding by at most 8 u of each term, whose
  magnitudes sum to 1: 8 u log2 n. The T-th power multiplies this by T F^(T - 1), and adds 16 u a step of its own. By
  Parseval the sum over all points is at most T u (8 log2 n + 16) sqrt(n) |p_(T-1)|, with |.| the root of the sum of
  squares, which by Hoelder is at most |p_T|^((T - 1) / T). One step more pays for the way back.
- Two kinds with pmf p and q, composed to r: u (8 log2 n + 16) sqrt(n) (|p| + |q| + |r|).

Rounding below 0 is cut to 0, which only raises delta, but may raise the total mass above 1: the sum of the errors is
multiplied by that mass. At 14,000 steps all this is about 1e-9: enough for delta = 1e-5, and not for 1e-13.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from veilset.privacy.dp_library import masses, sides
from veilset.privacy.mechanisms import of
from veilset.privacy.spent import Spent

COARSE, FINEST = 1e-3, 1e-6  # spacing of the first grid, and where refining ends (the last grid has 9.8e-7)
REFINED = 1e-3  # stop refining the grid when epsilon moves by less than this, relatively
SETTLED = 1e-5  # or absolutely: near epsilon = 0 a relative test would never end
SHARE = 0.01  # PLD claims while tails and rounding lie below this share of delta
TAIL = 2e-15
MOST_WORK = 4_000_000  # points of one grid, in which a point of a single step counts SINGLE: about 2 s, 200 MB
SINGLE = 12
TOO_LARGE = "PLD would need too large a grid"
ULP = 2.0**-53


class TooLarge(Exception):
    """A grid would have more points than are allowed; found before it is made."""


@dataclass(frozen=True)
class Grid:
    """A composition on one grid.

    Attributes:
        loss: dp-accounting's PrivacyLossDistribution.
        absolute, relative: bound of tails and rounding; their sum is absolute + relative * delta.
        work: how many points were computed.
    """

    loss: Any
    absolute: float
    relative: float
    work: float

    def error(self, delta: float) -> float:
        """How far delta, at any epsilon, may be off besides the grid's own rounding up."""
        return self.absolute + self.relative * delta


def grid(merged: Sequence[Spent], interval: float, most: float = MOST_WORK) -> Grid:
    """Compose on a grid of privacy losses with this spacing.

    Args:
        merged: lines as `accounting` merges them: at most one without sampling, with one step.
        interval: spacing.
        most: points that it may have.

    Raises:
        TooLarge: it would have more.
    """
    from dp_accounting.pld import privacy_loss_distribution as library

    whole, absolute, relative, work = library.identity(interval), 0.0, 0.0, 0.0
    for s in merged:
        mechanism = of(s)
        low, high = mechanism.span(s)
        directions = 1 if mechanism.symmetric else 2  # a unit comes, a unit goes
        work += SINGLE * directions * ((high - low) / interval + 1)
        _allow(work, most)
        one = many = mechanism.loss(s, interval)
        absolute += s.steps * ULP * mechanism.ulps(s, interval) + TAIL
        relative += s.steps * 4 * ULP / interval
        if mechanism.squared_mu(s) is None:
            many, error, work = self_composed(one, s.steps, work, most)
            absolute += error
        whole, error = composed(whole, many)
        absolute += error if len(merged) > 1 else 0.0
    mass = max(1.0, *(float(p.sum()) for p in masses(whole)))
    return Grid(whole, absolute * mass, relative * mass, work)


def self_composed(one: Any, steps: int, work: float, most: float = MOST_WORK) -> tuple[Any, float, float]:
    """One step's distribution `steps` times.

    Returns:
        It, the bound of what its Fourier transform adds, and `work` with its points.

    Raises:
        TooLarge: that work would be above `most`.
    """
    from dp_accounting.pld import common

    for p in masses(one):
        first, last = common.compute_self_convolve_bounds(p, steps, TAIL / 2)
        work += last - first + 1
    _allow(work, most)
    many = _self_compose(one, steps)
    pairs = zip(masses(one), masses(many), strict=True)
    error = max(_rounding(max(len(p), len(q)), (steps + 1) * _root(q) ** (1 - 1 / steps)) for p, q in pairs)
    return many, error, work


def composed(first: Any, second: Any) -> tuple[Any, float]:
    """Two distributions on one grid together, and the bound of what their Fourier transform adds."""
    whole = first.compose(second)
    three = zip(masses(first), masses(second), masses(whole), strict=True)
    return whole, max(_rounding(len(r), _root(p) + _root(q) + _root(r)) for p, q, r in three)


def _allow(work: float, most: float) -> None:
    if not work <= most:
        raise TooLarge


def _self_compose(one: Any, steps: int) -> Any:
    """The same release `steps` times. The library raises the number of points to this power, to see if few remain."""
    from dp_accounting.pld import privacy_loss_distribution as library

    if steps > 10 or any(p.size**steps > 1000 for p in sides(one)):
        one = library.PrivacyLossDistribution(*(p.to_dense_pmf() for p in sides(one)))
    return one.self_compose(steps)


def _root(p: Any) -> float:
    """Root of the sum of squares, of a pmf: at most 1 but for rounding."""
    return min(1.0, math.sqrt(float((p * p).sum())))


def _rounding(points: int, roots: float) -> float:
    """Bound of the summed errors of a Fourier transform over this many points; see above."""
    from scipy.fft import next_fast_len

    n = next_fast_len(points)
    return ULP * (8 * math.log2(n + 1) + 16) * math.sqrt(n) * roots


@functools.lru_cache(maxsize=1024)  # a plan is priced, shown, opened and closed: the same question each time
def at(merged: tuple[Spent, ...], delta: float, interval: float, most: float = MOST_WORK) -> tuple[float, float, float]:
    """(epsilon, bound of tails and rounding as a mass of delta, work) on one grid; see `grid`."""
    got = grid(merged, interval, most)
    return float(got.loss.get_epsilon_for_delta(delta)), got.error(delta), got.work


def refined(merged: tuple[Spent, ...], delta: float, most: float = MOST_WORK) -> tuple[float, str]:
    """epsilon on ever finer grids until it moves by less than 1e-3 relative, or 1e-5. Each is an upper bound.

    Returns:
        The least one, and why it is not refined to the end, or "". Infinite where PLD cannot certify at all.
    """
    least = min(s.steps * 48 * ULP for s in merged if of(s).squared_mu(s) is None)
    if len(merged) * TAIL + least > SHARE * delta:  # at the very least, on any grid
        return math.inf, f"PLD cannot certify delta = {delta:g}"
    return refine(lambda interval: at(merged, delta, interval, most), delta, most)


def refine(
    price: Callable[[float], tuple[float, float, float]], delta: float, most: float, coarse: float = COARSE
) -> tuple[float, str]:
    """What `price(spacing)` gives as `at` does, on ever finer grids; see `refined`. `coarse` is the first spacing."""
    best, interval, work = math.inf, coarse, 0.0
    while True:
        if 4 * work > most:
            return best, TOO_LARGE
        try:
            epsilon, error, work = price(interval)
        except TooLarge:
            return best, TOO_LARGE
        if error > SHARE * delta:
            return best, f"PLD cannot certify delta = {delta:g}"
        settled = abs(best - epsilon) <= max(REFINED * epsilon, SETTLED)
        best = min(best, epsilon)
        if settled or interval <= FINEST:
            return best, ""
        interval /= 4
